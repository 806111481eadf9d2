package mac

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"tapsec/internal/lab/vector"
)

// TestVectors computes every tag under testdata; each file says where its
// vectors come from.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors: ", err)
	}
	for _, file := range files {
		for i, v := range readVectors(t, file) {
			h := mustMAC(t, v.Get("mac"), unhex(t, v.Get("key")))
			h.Write(unhex(t, v.Get("message")))
			if got := hex.EncodeToString(h.Sum(nil)); got != v.Get("tag") {
				t.Errorf("%s %d (%s): %s, want %s", file, i+1, v.Get("mac"), got, v.Get("tag"))
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
