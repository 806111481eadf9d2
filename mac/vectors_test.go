package mac

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			h := mustMAC(t, v["mac"], unhex(t, v["key"]))
			h.Write(unhex(t, v["message"]))
			if got := hex.EncodeToString(h.Sum(nil)); got != v["tag"] {
				t.Errorf("%s %d (%s): %s, want %s", file, i+1, v["mac"], got, v["tag"])
			}
		}
	}
}

// readVectors reads blocks of "name: value" lines; # begins a comment.
func readVectors(t *testing.T, file string) (vectors []map[string]string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(data), "\n\n") {
		v := map[string]string{}
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(line, ":"); ok && line[0] != '#' {
				v[name] = strings.TrimSpace(value)
			}
		}
		if len(v) > 0 {
			vectors = append(vectors, v)
		}
	}
	return vectors
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
