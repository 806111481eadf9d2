package inspect

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProgress: of a file the rest can be told, of a pipe it cannot.
func TestProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "capture")
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		from io.Reader
		want string
	}{{file, "50 frames, 25 a second, 6 s left"}, {strings.NewReader(strings.Repeat("x", 1000)), "50 frames, 25 a second"}} {
		p := NewProgress(c.from)
		if _, err := io.ReadFull(p, make([]byte, 250)); err != nil {
			t.Fatal(err)
		}
		if got := p.Line(50, p.began.Add(2*time.Second)); got != c.want {
			t.Errorf("%q, expected %q", got, c.want)
		}
		if got := p.Line(0, p.began); got != "0 frames" {
			t.Errorf("at the beginning: %q", got)
		}
	}
}
