package esp

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			a, err := newNamed(v["suite"], unhex(t, v["key"]), unhex(t, v["salt"]), unhex(t, v["auth"]))
			if err != nil {
				t.Fatalf("%s %d: %v", file, i+1, err)
			}
			iv, aad := unhex(t, v["iv"]), unhex(t, v["aad"])
			text, sealed := unhex(t, v["plaintext"]), unhex(t, v["sealed"])
			if got := a.Seal(nil, iv, text, aad); !bytes.Equal(got, sealed) {
				t.Errorf("%s %d (%s): sealed %x, want %x", file, i+1, v["suite"], got, sealed)
			}
			if got, err := a.Open(nil, iv, sealed, aad); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s %d (%s): opened %x, %v, want %x", file, i+1, v["suite"], got, err, text)
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
