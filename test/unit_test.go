package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"tapsec/internal/lab/rig"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/test/program"
)

const unitFile = "../configs/systemd/tapsec@.service"

// analyze is systemd-analyze, which needs no running systemd for what it is asked
// here.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		rig.Missing(t, "needs systemd-analyze, of Debian's systemd")
	}
	said, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return string(said)
}

// TestUnit: the sample unit is one that systemd understands in all, and lets the
// service do little enough: exposure below 2.0 of 10.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	if err := os.WriteFile(installed, bytes.Replace(text, []byte("/usr/local/bin/tapsec"), []byte("/bin/true"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := analyze(t, "verify", installed); strings.Contains(said, "tapsec@") {
		t.Errorf("systemd does not understand all of it:\n%s", said)
	}
	analyze(t, "security", "--offline=true", "--threshold=19", "--no-pager", installed)
}

// unit is the sample's settings, each with its value on every line.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

// TestUnitIsEnough runs the unit's command with the capabilities, system calls and
// address families that it leaves: frames flow, a reload works, and the program
// confines itself further.
func TestUnitIsEnough(t *testing.T) {
	rig.Require(t)
	settings, dir := unit(t), sockets(t)
	local := "local: [192.0.2.2, 198.51.100.10]"
	config, control := write(t, local+headSA), filepath.Join(dir, "control")
	command := strings.NewReplacer("/etc/tapsec/%i.yaml", config, "%S/tapsec/%i/state.json", filepath.Join(dir, "state"),
		"%t/tapsec/%i/control", control, "$FLAGS", "--transport stack0").Replace(settings["ExecStart"][0])
	args := strings.Fields(command)
	if args[0] != "/usr/local/bin/tapsec" || args[1] != "run" || strings.ContainsAny(command, "%$") {
		t.Fatalf("the unit's command is %q", command)
	}
	m := manage(t)
	policy := filter(t, settings)
	started, ended := make(chan *process), make(chan struct{})
	defer close(ended)
	go func() { // on a thread that keeps what is taken from it, and gives no more to its children
		runtime.LockOSThread()
		if err := errors.Join(bound(strings.Fields(settings["CapabilityBoundingSet"][0])), seccomp.SetNoNewPrivs(), seccomp.LoadFilter(seccomp.Filter{Policy: policy})); err != nil {
			t.Error(err)
		}
		started <- launchProgram(t, program.Command(args[1:]...))
		<-ended // the children die with the thread
	}()
	p := <-started
	said := p.waitLog("msg=ready")
	if engine, _ := tap.Probe(); strings.Contains(said, "level=WARN") || !strings.Contains(said, "is="+engine.String()) {
		t.Errorf("expected no warning, and the engine %s:\n%s", engine, said)
	}
	if got := m.next(); got != "READY=1" {
		t.Errorf("told the manager %q", got)
	}
	c := ask(t, control).Confinement
	if len(c.Capabilities) > 0 || c.Seccomp != "filter" || c.Dumpable || !c.Files && c.Landlock > 0 {
		t.Errorf("%+v", c)
	}
	replace(t, config, local+moreSAs)
	p.signal(unix.SIGHUP)
	p.waitLog("msg=reloaded")
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	wire.send(newMixer(t).sample(0, 100).frame)
	stack.next()
	sum := readSummary(t, p.stop())
	if got := sum[status.Verified.Qualified()]; len(got) == 0 || got[0] != 1 {
		t.Errorf("%v verified, want 1", got)
	}
}

// bound takes from the calling thread the capabilities that are not listed, but
// as systemd does only for what it executes.
func bound(keep []string) error {
	for v := range cap.MaxBits() {
		if !slices.Contains(keep, strings.ToUpper(v.String())) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(v), 0, 0, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// filter is SystemCallFilter and RestrictAddressFamilies as systemd makes a filter
// of them: lists that are allowed, and those with ~ taken off again.
func filter(t *testing.T, settings map[string][]string) seccomp.Policy {
	t.Helper()
	here, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	groups, allowed := callGroups(t), map[string]bool{}
	for _, line := range settings["SystemCallFilter"] {
		list, off := strings.CutPrefix(line, "~")
		for _, word := range strings.Fields(list) {
			for _, name := range groups.calls(word) {
				allowed[name] = !off
			}
		}
	}
	delete(allowed, "socket")
	var names []string
	for name, yes := range allowed {
		if _, known := here.SyscallNames[name]; yes && known {
			names = append(names, name)
		}
	}
	families := map[string]uint64{"AF_UNIX": unix.AF_UNIX, "AF_NETLINK": unix.AF_NETLINK, "AF_PACKET": unix.AF_PACKET, "AF_INET": unix.AF_INET}
	var of []seccomp.NameWithConditions
	for _, name := range strings.Fields(settings["RestrictAddressFamilies"][0]) {
		of = append(of, seccomp.NameWithConditions{Name: "socket", Conditions: seccomp.ArgumentConditions{
			{Argument: 0, Operation: seccomp.Equal, Value: families[name]}}})
	}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: of}}}
}

// groups are systemd's groups of system calls, by name.
type groups map[string][]string

func callGroups(t *testing.T) groups {
	t.Helper()
	all, name := groups{}, ""
	for line := range strings.Lines(analyze(t, "syscall-filter", "--no-pager")) {
		switch word := strings.TrimSpace(line); {
		case word == "" || strings.HasPrefix(word, "#"):
		case strings.HasPrefix(line, "@"):
			name = word
		case name != "":
			all[name] = append(all[name], word)
		}
	}
	return all
}

// calls are those of a group, and of the groups in it, or the call itself.
func (g groups) calls(word string) (all []string) {
	if !strings.HasPrefix(word, "@") {
		return []string{word}
	}
	for _, inside := range g[word] {
		all = append(all, g.calls(inside)...)
	}
	return all
}
