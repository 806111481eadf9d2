package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestDiagnose looks at this machine, whatever it has: each finding is told, and
// one that is not met says what to do.
func TestDiagnose(t *testing.T) {
	d := diagnose()
	names := map[string]bool{}
	for _, f := range d.Findings {
		if f.Detail == "" || f.Met != (f.Remedy == "") || names[f.Name] {
			t.Errorf("%+v", f)
		}
		names[f.Name] = true
	}
	for _, name := range []string{"tun device", "user namespaces", "CAP_NET_ADMIN", "kernel", "io_uring", "steering", "bridge filter", "bridge MTU"} {
		if !names[name] {
			t.Errorf("nothing on %s", name)
		}
	}
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if name, major, _ := release(); err == nil && (name != strings.TrimSpace(string(text)) || major == 0) {
		t.Errorf("kernel %q, want %q", name, text)
	}
}

// TestDoctor: exit code and state follow what was found.
func TestDoctor(t *testing.T) {
	good := diagnosis{Run: true, Demo: true, Engine: "plain", Findings: []finding{
		{Name: "tun device", Met: true, Needed: true, Detail: "There."},
		{Name: "bridge MTU", Detail: "Small.", Remedy: "Raise it."},
	}}
	bad := good
	bad.Run = false
	bad.Findings = []finding{{Name: "tun device", Needed: true, Detail: "Absent.", Remedy: "Load it."}}
	for _, c := range []struct {
		diagnosis
		code int
		want []string
	}{
		{good, exitOK, []string{"tun device  yes", "bridge MTU  note", "Do: Raise it."}},
		{bad, exitMachine, []string{"tun device  NO", "Do: Load it.", "needs the tun device"}},
	} {
		var table, object bytes.Buffer
		if code := exitCode(doctor(&table, c.diagnosis, false)); code != c.code {
			t.Errorf("exit code %d, want %d", code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(table.String(), want) {
				t.Errorf("no %q in\n%s", want, table.String())
			}
		}
		err := doctor(&object, c.diagnosis, true)
		var back diagnosis
		if err := json.Unmarshal(object.Bytes(), &back); err != nil || back.Run != c.Run || len(back.Findings) != len(c.Findings) {
			t.Errorf("%v, %s", err, object.Bytes())
		}
		if exitCode(err) != c.code {
			t.Errorf("with --json: %v", err)
		}
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
