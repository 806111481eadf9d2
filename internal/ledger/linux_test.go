//go:build linux

package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is no regular file is neither waited for nor replaced: a pipe, and by a link just as well a device.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink(pipe, link)); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that whoever reads waits for us, and is let go of
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link} {
		said := make(chan error, 1)
		go func() {
			l, err := Open(path, nil)
			if err == nil {
				l.Close()
			}
			said <- err
		}()
		other.WriteString("\n")
		if err := <-said; err == nil || !strings.Contains(err.Error(), "name another file") {
			t.Errorf("said %v", err)
		}
	}
	other.Close()
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("there is %v", left)
	}
}
