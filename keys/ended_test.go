package keys

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What charon destroyed has ended, and nothing else: of the log of a daemon that rekeyed
// six times, with the kernel's ESP, up to four moments the SAs that have not are those
// that its kernel had then. A daemon that starts anew has none.
func TestCharonEnded(t *testing.T) {
	log, err := os.ReadFile("testdata/ended/charon.log")
	if err != nil {
		t.Fatal(err)
	}
	text := string(log)
	for _, at := range []struct{ until, alive string }{
		{"vici terminate CHILD_SA", "c1094e9c cb1b0300"},
		{"parsed CREATE_CHILD_SA request 8", ""},
		{"parsed INFORMATIONAL request 9", "c12c1032 c254e30e"},
		{"", ""},
	} {
		part, _, there := strings.Cut(text, at.until)
		if at.until == "" {
			part, there = text, true
		}
		sas, err := Read("log", []byte(part))
		if err != nil || !there || len(sas.All) < 14 || len(sas.Notes) != 0 {
			t.Fatalf("%v: %+v", err, sas)
		}
		var alive []string
		for _, s := range sas.All {
			if !slices.Contains(sas.Ended, s.Name) {
				alive = append(alive, strings.TrimPrefix(s.Name, "esp-"))
			}
		}
		slices.Sort(alive)
		if got := strings.Join(alive, " "); got != at.alive {
			t.Errorf("up to %q %s are alive, want %s", at.until, got, at.alive)
		}
	}
	part, _, _ := strings.Cut(text, "vici terminate CHILD_SA")
	sas, err := Read("log", []byte(part+"\n00[DMN] Starting IKE charon daemon (strongSwan 5.9.8, Linux 6.1.0, x86_64)\n"))
	if err != nil || len(sas.Ended) != len(sas.All) {
		t.Errorf("%d of %d have ended with the daemon: %v", len(sas.Ended), len(sas.All), err)
	}
}
