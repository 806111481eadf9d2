package house

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the program does not reach serves a test alone, and has no place in a product
// package. internal/lab is for tests, too; what other programs are to use has an
// Example.
func TestNothingUnreachable(t *testing.T) {
	cmd := exec.Command("go", "tool", "deadcode", "-json", ".")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []struct {
		Path  string
		Funcs []struct{ Name string }
	}
	if err := json.Unmarshal(out, &packages); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		folder := strings.TrimPrefix(p.Path, "tapsec/")
		if strings.HasPrefix(folder, "internal/lab/") {
			continue
		}
		examples, _ := os.ReadFile(filepath.Join(root, folder, "example_test.go"))
		for _, f := range p.Funcs {
			name := f.Name[strings.LastIndex(f.Name, ".")+1:]
			if !regexp.MustCompile(`\.` + name + `\(`).Match(examples) {
				t.Errorf("%s: %s is reached neither by the program nor by an Example", p.Path, f.Name)
			}
		}
	}
}

// Each package at the top, which other programs may import, has an Example that is
// run.
func TestExamples(t *testing.T) {
	for name := range listPackages(t) {
		if name == "main" || name == "test" || strings.Contains(name, "/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name, "example_test.go"))
		if err != nil || !bytes.Contains(text, []byte("// Output:")) {
			t.Errorf("package %s has no Example with its output (%v)", name, err)
		}
	}
}
