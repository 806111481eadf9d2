package esp

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"tapsec/internal/lab/vector"
)

// TestVectors seals and opens every vector under testdata; each file says where
// its vectors come from.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors: ", err)
	}
	for _, file := range files {
		for i, v := range readVectors(t, file) {
			a, err := newNamed(v.Get("suite"), unhex(t, v.Get("key")), unhex(t, v.Get("salt")), unhex(t, v.Get("auth")))
			if err != nil {
				t.Fatalf("%s %d: %v", file, i+1, err)
			}
			iv, aad := unhex(t, v.Get("iv")), unhex(t, v.Get("aad"))
			text, sealed := unhex(t, v.Get("plaintext")), unhex(t, v.Get("sealed"))
			if got := a.Seal(nil, iv, text, aad); !bytes.Equal(got, sealed) {
				t.Errorf("%s %d (%s): sealed %x, want %x", file, i+1, v.Get("suite"), got, sealed)
			}
			if got, err := a.Open(nil, iv, sealed, aad); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s %d (%s): opened %x, %v, want %x", file, i+1, v.Get("suite"), got, err, text)
			}
		}
	}
}

// readVectors gives the vectors of a file.
func readVectors(t *testing.T, file string) []vector.Block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return vector.Parse(string(text))
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
