package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMan writes a page for each command that a user sees, in both forms.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	root := newRoot()
	if err := errors.Join(man(root, dir, false), man(root, dir, true)); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, "tapsec-"+cmd.Name()+".1"))
		if err != nil || !strings.Contains(string(page), ".SH NAME") {
			t.Errorf("%s: %v", cmd.Name(), err)
		}
		page, err = os.ReadFile(filepath.Join(dir, "tapsec_"+cmd.Name()+".md"))
		if err != nil || !strings.HasPrefix(string(page), "## tapsec "+cmd.Name()+"\n") {
			t.Errorf("%s in Markdown: %v", cmd.Name(), err)
		}
	}
}
