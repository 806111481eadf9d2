package mac

import (
	"encoding/hex"
	"path/filepath"
	"testing"

	"tapsec/test/testkit"
)

// TestVectors computes every tag under testdata; each file says where its
// vectors come from.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors: ", err)
	}
	for _, file := range files {
		for i, v := range testkit.Vectors(t, file) {
			h := mustMAC(t, v.Get("mac"), testkit.Unhex(t, v.Get("key")))
			h.Write(testkit.Unhex(t, v.Get("message")))
			if got := hex.EncodeToString(h.Sum(nil)); got != v.Get("tag") {
				t.Errorf("%s %d (%s): %s, want %s", file, i+1, v.Get("mac"), got, v.Get("tag"))
			}
		}
	}
}
