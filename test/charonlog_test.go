package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

// TestCharonLogFollowed: a NIC that is keyed from charon's log takes what comes to be
// there and lets go of what ends there, with no signal; what the log says of other
// things reloads nothing.
func TestCharonLogFollowed(t *testing.T) {
	rig.Require(t)
	text, err := os.ReadFile("../keys/testdata/ended/charon.log")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, socket := filepath.Join(dir, "charon.log"), filepath.Join(sockets(t), "control")
	rest := string(text)
	grow := func(until string) {
		t.Helper()
		part, more, there := strings.Cut(rest, until)
		if !there {
			t.Fatalf("no %q in the log", until)
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(part + until)
		}
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		rest = more
	}
	grow("CHILD_SA site{1} state change: INSTALLING => INSTALLED\n")
	p := launchProgram(t, program.Command("run", "-k", path, "--control", socket))
	log := p.waitLog("msg=ready")
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	is := func(want ...string) {
		t.Helper()
		program.Await(t, strings.Join(want, " "), func() bool {
			page, err := client.List(0, 100)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range page.SAs {
				if got = append(got, s.Name); !s.Offloaded || s.Origin != "file" {
					t.Fatalf("%+v", s)
				}
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		})
	}
	is("esp-c50ebef5", "esp-c5634270")
	grow("CHILD_SA site{6} state change: DELETED => DESTROYING\n")
	is("esp-c1094e9c", "esp-cb1b0300")
	grow("CHILD_SA site{7} state change: DELETED => DESTROYING\n")
	is()
	grow("CHILD_SA site{8} state change: INSTALLING => INSTALLED\n")
	is("esp-c12c1032", "esp-c254e30e")
	grow("generating CREATE_CHILD_SA response 8") // no news of an SA
	grow("CHILD_SA site{8} state change: INSTALLED => DESTROYING\n")
	is()
	p.stop()
	log += p.logged()
	if n := strings.Count(log, "msg=reloaded"); n < 4 || n > 8 { // one that is read while it is written may be read twice
		t.Errorf("it was reloaded %d times, for 4 changes of SAs\n%s", n, log)
	}
}
