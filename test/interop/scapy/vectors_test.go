package scapy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The generator, run again, writes the committed files.
func TestGenerator(t *testing.T) {
	need(t)
	generator, err := os.Open("vectors.py")
	if err != nil {
		t.Fatal(err)
	}
	defer generator.Close()
	dir := t.TempDir()
	cmd := exec.Command(python, "-", dir)
	cmd.Stdin = generator
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made, committed := glob(t, dir), glob(t, "../../../internal/lab/conformance/vectors/scapy")
	if len(made) != len(committed) {
		t.Fatalf("%d files were made, %d are committed", len(made), len(committed))
	}
	for i := range made {
		got, err := os.ReadFile(made[i])
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(committed[i]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the committed one; %v", filepath.Base(made[i]), err)
		}
	}
}

func glob(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", dir, err)
	}
	return files
}
