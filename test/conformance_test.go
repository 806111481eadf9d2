package test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/program"
)

// report is what conformance --json prints.
type report struct {
	Judged  string
	Passed  int
	Failed  int
	NotRun  int `json:"not_run"`
	Results []struct {
		Source, Row, Case, Outcome, Differs string
	}
}

// conform runs the command and reads its report; environment entries come before its arguments.
func conform(t *testing.T, env []string, args ...string) (r report, exit int) {
	t.Helper()
	cmd := program.Command(append([]string{"conformance", "--json"}, args...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TAPSEC_RIG=") }), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		exit = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if len(r.Results) != r.Passed+r.Failed+r.NotRun {
		t.Errorf("%d results: %d passed, %d failed, %d not run", len(r.Results), r.Passed, r.Failed, r.NotRun)
	}
	return r, exit
}

// having gives the cases with that outcome.
func (r *report) having(outcome string) (cases []string) {
	for _, c := range r.Results {
		if c.Outcome == outcome {
			cases = append(cases, strings.TrimSpace(c.Source+" "+c.Row)+": "+c.Case)
		}
	}
	return cases
}

const everyCase = 3000 // at least

// TestConformance judges the program on TAPs and in memory: all rows of the contract, all vectors.
func TestConformance(t *testing.T) {
	rig.Require(t)
	for _, where := range []string{"--tap", "--memory"} {
		r, exit := conform(t, nil, where)
		if exit != 0 || r.Passed < everyCase || r.Failed+r.NotRun > 0 {
			t.Errorf("%s: exit code %d, %d passed, %d not run, failed: %q", where, exit, r.Passed, r.NotRun, r.having("failed"))
		}
	}
	cmd := program.Command("conformance", "--memory", "--junit")
	out, err := cmd.Output()
	var suites struct {
		Suites []struct {
			Cases []struct{} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err = errors.Join(err, xml.Unmarshal(out, &suites)); err != nil || len(suites.Suites) < 10 {
		t.Errorf("JUnit: %d suites, %v", len(suites.Suites), err)
	}
}

// otherNIC gives the arguments that judge `tapsec run` as somebody else's NIC: a process that a
// command readies for each setup, between two interfaces that were there before.
func otherNIC(t *testing.T, change string) (env, args []string) {
	t.Helper()
	for _, name := range []string{"wire0", "host0"} {
		addTAP(t, name)
		if err := netns.Up(name); err != nil {
			t.Fatal(err)
		}
	}
	env = []string{"PROGRAM=" + program.Path, "FOLDER=" + t.TempDir(), "CHANGE=" + change}
	t.Cleanup(func() {
		end := exec.Command("./ready.sh", "")
		end.Env = append(os.Environ(), env...)
		if out, err := end.CombinedOutput(); err != nil {
			t.Errorf("end the NIC: %v\n%s", err, out)
		}
		if err := errors.Join(netns.Delete("wire0"), netns.Delete("host0")); err != nil {
			t.Error(err)
		}
	})
	return env, []string{"--wire", "wire0", "--host", "host0", "--configure", "./ready.sh", "--wait", "10s"}
}

// TestConformanceOfAnotherNIC judges a NIC that is another process. What cannot be asked of one that
// is readied by a file is said.
func TestConformanceOfAnotherNIC(t *testing.T) {
	rig.Require(t)
	env, args := otherNIC(t, "")
	r, exit := conform(t, env, args...)
	if left := r.having("not run"); exit != 0 || r.Passed < everyCase || r.Failed > 0 ||
		!slices.Equal(left, []string{"contract 27: the SA has been deleted"}) {
		t.Errorf("exit code %d, %d passed, not run %q, failed %q", exit, r.Passed, left, r.having("failed"))
	}
}

// TestConformanceFails judges NICs that are broken, each in its way.
func TestConformanceFails(t *testing.T) {
	rig.Require(t)
	for _, broken := range []struct {
		how, change string
		failed      []string // nil: every case
	}{
		{"one SA has another key", `/name: "gateway"$/,/name:/s/(encryption_key: 0x)../\1ff/`, []string{"contract 6: tunnel ESP"}},
		{"AH is switched off", `s/ah: true/ah: false/`, []string{
			"contract 5: transport AH", "contract 6: tunnel AH", "contract 7: transport AH, wrong ICV", "contract 9: tunnel AH, wrong ICV"}},
		{"it annotates nothing", `1i host: {form: decap, annotate: none}`, nil},
	} {
		t.Run(broken.how, func(t *testing.T) {
			env, args := otherNIC(t, broken.change)
			r, exit := conform(t, env, append(args, "--setup", "plain")...)
			if failed := r.having("failed"); exit != 4 || broken.failed != nil && !slices.Equal(failed, broken.failed) ||
				broken.failed == nil && (r.Passed > 0 || len(failed) == 0) {
				t.Errorf("exit code %d, %d passed, failed %q", exit, r.Passed, failed)
			}
		})
	}
	t.Run("it is not there", func(t *testing.T) {
		env, args := otherNIC(t, "")
		r, exit := conform(t, env, append(args, "--configure", "true", "--setup", "plain", "--wait", "100ms")...)
		if exit != 4 || r.Passed > 0 || !strings.Contains(r.Results[0].Differs, "nothing came") {
			t.Errorf("exit code %d, %d passed, %+v", exit, r.Passed, r.Results[0])
		}
	})
}

// A signal ends it even while another NIC is prepared, and nothing is left.
func TestConformanceStopped(t *testing.T) {
	rig.Require(t)
	veth(t, "stopped", 2000)
	for _, signal := range []string{"INT", "TERM", "HUP"} {
		dir := t.TempDir()
		cmd := program.Command("conformance", "--wire", "stopped", "--host", rig.FarEnd("stopped"), "--configure", "kill -"+signal+" $PPID; exec sleep 100 >/dev/null 2>&1; :")
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		said, err := cmd.CombinedOutput()
		if left, _ := os.ReadDir(dir); cmd.ProcessState.ExitCode() != 1 || string(said) != "tapsec: interrupted\n" || len(left) > 0 {
			t.Errorf("SIG%s: %v, %s; left %v", signal, err, said, left)
		}
	}
}

// Frames of others are not waited for, however many come.
func TestConformanceAmongOthers(t *testing.T) {
	rig.Require(t)
	veth(t, "unheard", 2000)
	veth(t, "noisy", 2000)
	others, frame, ended := listen(t, rig.FarEnd("noisy")), framed(plain(server, 1, 100)), make(chan struct{})
	defer close(ended)
	go func() {
		for tick := time.Tick(time.Millisecond); ; {
			select {
			case <-tick:
				_ = others.Send(frame) // in vain at the end
			case <-ended:
				return
			}
		}
	}()
	if _, exit := conform(t, nil, "--wire", "unheard", "--host", "noisy", "--setup", "plain"); exit != 4 {
		t.Errorf("exit code %d", exit)
	}
}

// What an interface of another NIC lacks is said, with its name and what to do.
func TestConformanceNeedsItsInterfaces(t *testing.T) {
	rig.Require(t)
	for _, c := range []struct {
		name string
		mtu  int
		down bool
		said string
	}{
		{"narrow0", 100, false, "interface narrow0 does not take a frame of "},
		{"down0", 9000, true, "interface down0 is down: ip link set down0 up"},
	} {
		remove, err := rig.QuietVeths(c.mtu, c.name)
		if err == nil && c.down {
			err = rig.Down(c.name)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := program.Command("conformance", "--wire", c.name, "--host", rig.FarEnd(c.name), "--setup", "plain").CombinedOutput()
		if failed := new(exec.ExitError); !errors.As(err, &failed) || failed.ExitCode() != 1 || !strings.Contains(string(out), c.said) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
}
