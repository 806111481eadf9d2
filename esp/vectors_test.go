package esp

import (
	"bytes"
	"path/filepath"
	"testing"

	"tapsec/test/testkit"
)

// TestVectors seals and opens every vector under testdata; each file says where
// its vectors come from.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors: ", err)
	}
	for _, file := range files {
		for i, v := range testkit.Vectors(t, file) {
			a, err := newNamed(v.Get("suite"), testkit.Unhex(t, v.Get("key")), testkit.Unhex(t, v.Get("salt")), testkit.Unhex(t, v.Get("auth")))
			if err != nil {
				t.Fatalf("%s %d: %v", file, i+1, err)
			}
			iv, aad := testkit.Unhex(t, v.Get("iv")), testkit.Unhex(t, v.Get("aad"))
			text, sealed := testkit.Unhex(t, v.Get("plaintext")), testkit.Unhex(t, v.Get("sealed"))
			if got := a.Seal(nil, iv, text, aad); !bytes.Equal(got, sealed) {
				t.Errorf("%s %d (%s): sealed %x, want %x", file, i+1, v.Get("suite"), got, sealed)
			}
			if got, err := a.Open(nil, iv, sealed, aad); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s %d (%s): opened %x, %v, want %x", file, i+1, v.Get("suite"), got, err, text)
			}
		}
	}
}
