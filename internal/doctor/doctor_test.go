package doctor

import (
	"os"
	"strings"
	"testing"
)

// TestDiagnose looks at this machine, whatever it has: each finding is told, and
// one that is not met says what to do.
func TestDiagnose(t *testing.T) {
	d := Diagnose()
	names := map[string]bool{}
	for _, f := range d.Findings {
		if f.Detail == "" || f.Met != (f.Remedy == "") || names[f.Name] {
			t.Errorf("%+v", f)
		}
		names[f.Name] = true
	}
	for _, name := range []string{"tun device", "user namespaces", "CAP_NET_ADMIN", "kernel", "io_uring", "xdp", "steering", "bridge filter", "bridge MTU"} {
		if !names[name] {
			t.Errorf("nothing on %s", name)
		}
	}
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if name, major, _ := release(); err == nil && (name != strings.TrimSpace(string(text)) || major == 0) {
		t.Errorf("kernel %q, want %q", name, text)
	}
}

// TestAtLeast compares kernel releases by number, not by text.
func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		major, minor int
		want         bool
	}{{6, 7, true}, {6, 18, true}, {7, 0, true}, {6, 6, false}, {5, 19, false}, {0, 0, false}} {
		if got := atLeast(c.major, c.minor, 6, 7); got != c.want {
			t.Errorf("%d.%d at least 6.7: %t", c.major, c.minor, got)
		}
	}
}
