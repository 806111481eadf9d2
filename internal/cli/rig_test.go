package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/configs"
	"tapsec/internal/exit"
	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/test/testkit"
)

// needRig ends a test where no rig can be put up, and gives its rigs a directory of their own.
func needRig(t *testing.T) {
	t.Helper()
	met := map[string]bool{}
	for _, n := range rig.Needs() {
		met[n.Name] = n.Met
	}
	if !met["tun device"] || !met["user namespaces"] && !met["CAP_NET_ADMIN"] {
		rig.Missing(t, "needs a tun device and namespaces; tapsec doctor says more")
	}
	for _, program := range []string{"nsenter", "ip", "ping"} {
		needProgram(t, program)
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())         // in the machine's are those of other packages' tests
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or each command waits for a second under the race detector
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		rig.Missing(t, "needs "+name)
	}
}

// result is what a command came to.
type result struct {
	out, err string
	code     int
}

// do runs a command of tapsec: the test binary under that name.
func do(t *testing.T, args ...string) result { return doWith(t, nil, args...) }

func doWith(t *testing.T, in io.Reader, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command("tapsec", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// must is do where the exit code has to be that.
func must(t *testing.T, code int, args ...string) result {
	t.Helper()
	r := do(t, args...)
	if r.code != code {
		t.Fatalf("tapsec %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	return r
}

// up puts a rig up, and down again after the test.
func up(t *testing.T, args ...string) result {
	t.Helper()
	r := must(t, 0, append([]string{"rig", "up"}, args...)...)
	t.Cleanup(func() {
		name := hosts.Default
		if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
			name = args[0]
		}
		do(t, "rig", "down", name)
	})
	return r
}

// reports is what status --json says; its exit code has to be that.
func reports(t *testing.T, code int) []rig.Report {
	t.Helper()
	var all []rig.Report
	if err := json.Unmarshal([]byte(must(t, code, "rig", "status", "--json").out), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// traces is everything that a rig could leave on the machine, where others make and remove things of their own.
func traces(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	links, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ofRig := regexp.MustCompile(` (wire|host|stack)0|tapsec|/run/netns/(a|b|nic)\b`)
	for line := range strings.Lines(string(mounts) + string(links)) {
		if ofRig.MatchString(line) {
			all = append(all, line)
		}
	}
	for _, pattern := range []string{"/run/tapsec*", "/run/.machine", "/run/netns/[ab]", "/run/netns/nic", filepath.Join(os.TempDir(), "*"), filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "*")} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	return fmt.Sprintf("%q\n%q", all, rigProcesses(t))
}

// rigProcesses are the command lines of the processes whose environment names this test's directory.
func rigProcesses(t *testing.T) []string {
	t.Helper()
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []string
	for _, path := range environs {
		environ, err := os.ReadFile(path)
		dir := filepath.Dir(path)
		if err != nil || !bytes.Contains(environ, []byte("XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR")+"\x00")) || !bytes.Contains(environ, []byte("TAPSEC_RIG_ID=")) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
	}
	slices.Sort(found)
	return found
}

// patience is how long anything may take on a machine that has much else to do.
const patience = testkit.Patience

// pings checks that each host reaches the other in both families, from the first packet on.
func pings(t *testing.T, flags ...string) {
	t.Helper()
	for host, addresses := range map[string][]string{"a": {"10.77.0.2", "fd77::2"}, "b": {"10.77.0.1", "fd77::1"}} {
		for _, a := range addresses {
			// With -w it pings until two are back, and its exit code says whether they are.
			must(t, 0, append(append([]string{"rig", "exec"}, flags...), host, "--", "ping", "-c2", "-i0.01", "-w60", a)...)
		}
	}
}

// TestRig is the life of a rig as its user sees it.
func TestRig(t *testing.T) {
	needRig(t)
	before := traces(t)
	if r := must(t, exit.Machine, "rig", "status"); !strings.Contains(r.err, "tapsec rig up") {
		t.Errorf("status of nothing: %q", r.err)
	}
	said := up(t)
	pings(t)
	if r := must(t, exit.Machine, "rig", "up"); !strings.Contains(r.err, "tapsec rig down") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("up twice: %q", r.err)
	}
	all := reports(t, 0)
	if len(all) != 1 || !all[0].Up || all[0].Name != hosts.Default || len(all[0].Hosts) != 3 || !all[0].Programs[0].Alive {
		t.Errorf("%+v", all)
	}
	status := must(t, 0, "rig", "status").out
	for _, want := range []string{"10.77.0.1", "fd77::2", all[0].Log, all[0].Config, fmt.Sprint(all[0].Supervisor.PID)} {
		if !strings.Contains(said.out, want) || !strings.Contains(status, want) {
			t.Errorf("no %s in\n%s%s", want, said.out, status)
		}
	}
	if st, err := os.Stat(all[0].Config); err != nil || st.Mode() != 0o600 {
		t.Errorf("configuration: %v %v", st, err)
	}
	must(t, 0, "rig", "down")
	if after := traces(t); after != before {
		t.Errorf("left behind: before\n%s\nafter\n%s", before, after)
	}
	if r := must(t, exit.Machine, "rig", "down"); !strings.Contains(r.err, "is not up") {
		t.Errorf("down twice: %q", r.err)
	}
	if r := must(t, exit.Machine, "rig", "exec", "a"); !strings.Contains(r.err, "tapsec rig up") {
		t.Errorf("exec in nothing: %q", r.err)
	}
}

// TestRigCommands: what up says can be copied works.
func TestRigCommands(t *testing.T) {
	needRig(t)
	said := up(t, "other").out
	commands := regexp.MustCompile(`(?m)^tapsec (rig exec .* -- ping .*)$`).FindAllStringSubmatch(said, -1)
	if len(commands) != 2 {
		t.Fatalf("commands %q in\n%s", commands, said)
	}
	for _, c := range commands {
		must(t, 0, strings.Fields(strings.Replace(c[1], "-c3", "-c1", 1))...)
	}
	must(t, exit.Machine, "rig", "exec", "a", "true")
	needProgram(t, "tcpdump")
	look := regexp.MustCompile(`(?m)^tapsec capture .* \| tcpdump .*$`).FindString(said)
	if out, err := exec.Command("sh", "-c", lookScript, "sh", look, "other").CombinedOutput(); err != nil || !strings.Contains(string(out), "ESP(spi=0x") {
		t.Errorf("%v: %s\n%s", err, look, out)
	}
}

// lookScript runs the line by which up shows the frames of a rig, until it has shown one, while a pings.
const lookScript = `
tapsec rig exec --rig "$2" a -- ping -i0.1 10.77.0.2 >/dev/null 2>&1 & ping=$!
eval "$(echo "$1" | sed "s/ -w - / --only good --count 1&/")"; code=$?
kill $ping; exit $code`

// TestRigExec: input, output, directory, exit code, host name and signals are the command's own.
func TestRigExec(t *testing.T) {
	needRig(t)
	up(t)
	dir := t.TempDir()
	t.Chdir(dir)
	r := doWith(t, strings.NewReader("in"), "rig", "exec", "b", "--", "sh", "-c", "cat; echo out; echo err >&2; pwd; uname -n; exit 41")
	if want := (result{"inout\n" + dir + "\nb\n", "err\n", 41}); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if r := must(t, 0, "rig", "exec", "nic", "echo", "-n", "--", "-x"); r.out != "-- -x" {
		t.Errorf("the command's own flags: %q", r.out)
	}
	if r := must(t, exitNotFound, "rig", "exec", "a", "--", "nothing-of-the-kind"); !strings.Contains(r.err, "nothing-of-the-kind") {
		t.Error(r.err)
	}
	must(t, exitNotRun, "rig", "exec", "a", "--", "/etc/passwd")
	if r := must(t, exit.Input, "rig", "exec", "c", "--", "true"); !strings.Contains(r.err, "there are a, b, nic") {
		t.Errorf("host c of a rig: %q", r.err)
	}
	must(t, exit.Input, "rig", "exec")
	t.Setenv("SHELL", "/bin/sh")
	if r := doWith(t, strings.NewReader("uname -n"), "rig", "exec", "a"); r.out != "a\n" {
		t.Errorf("without a command: %+v", r)
	}
	cmd := exec.Command("tapsec", "rig", "exec", "a", "--", "sh", "-c", "echo in; exec sleep 100")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 3))
	cmd.Process.Signal(unix.SIGUSR1)
	cmd.Wait()
	if got := cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != unix.SIGUSR1 {
		t.Errorf("ended by %v", cmd.ProcessState)
	}
}

// TestRigTerminal: a shell in a host has job control, so that Ctrl-C ends what it runs and not the
// shell.
func TestRigTerminal(t *testing.T) {
	needRig(t)
	up(t)
	here, there := terminal(t)
	cmd := exec.Command("tapsec", "rig", "exec", "a")
	cmd.Env = append(os.Environ(), "SHELL=/bin/sh", "PS1=$ ", "ENV=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = there, there, there
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	there.Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	seen := "" // and not yet expected
	expect := func(what string) {
		t.Helper()
		b := make([]byte, 1000)
		for !strings.Contains(seen, what) {
			here.SetReadDeadline(time.Now().Add(patience))
			n, err := here.Read(b)
			if seen += string(b[:n]); err != nil {
				t.Fatalf("no %q: %v; seen %q", what, err, seen)
			}
		}
		_, seen, _ = strings.Cut(seen, what)
	}
	expect("host a of rig default")
	expect("$ ")
	io.WriteString(here, "sh -c 'echo b\"\"egun; exec sleep 100'\n")
	expect("begun")
	here.Write([]byte{3})
	expect("$ ")
	io.WriteString(here, "echo $(tty) on $(uname -n); exit\n")
	expect(" on a")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// terminal makes a pseudo-terminal; here is the end of who types.
func terminal(t *testing.T) (here, there *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		rig.Missing(t, "needs a pseudo-terminal: "+err.Error())
	}
	here = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { here.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		there, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return here, there
}

// TestRigKilled: whatever is killed, status says so and down clears it away, guests too.
func TestRigKilled(t *testing.T) {
	needRig(t)
	before := traces(t)
	for _, what := range []string{"program", "supervisor"} {
		up(t)
		guest := exec.Command("tapsec", "rig", "exec", "b", "--", "sh", "-c", "echo in; sleep 100; true")
		out, err := guest.StdoutPipe()
		if err == nil {
			err = guest.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 3))
		r := reports(t, 0)[0]
		pid := r.Supervisor.PID
		if what == "program" {
			pid = r.Programs[0].Process.PID
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"program": "ENDED: signal: killed", "supervisor": "DIED"}[what]
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			status := do(t, "rig", "status").out
			if strings.Contains(status, want) && !reports(t, exit.Machine)[0].Programs[0].Alive {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s killed, status says\n%s", what, status)
			}
		}
		if r := reports(t, exit.Machine)[0]; r.Up != (what == "program") {
			t.Errorf("%s killed: %+v", what, r)
		}
		must(t, 0, "rig", "down")
		guest.Wait()
		if after := traces(t); after != before {
			t.Errorf("left behind: before\n%s\nafter\n%s", before, after)
		}
	}
}

// TestRigTwice: two rigs at once, each with its own network.
func TestRigTwice(t *testing.T) {
	needRig(t)
	up(t, "one")
	up(t, "two")
	pings(t, "--rig", "one")
	pings(t, "--rig", "two")
	net := func(name string) string {
		return must(t, 0, "rig", "exec", "--rig", name, "a", "readlink", "/proc/self/ns/net").out
	}
	if net("one") == net("two") {
		t.Error("host a is the same in both")
	}
	must(t, 0, "rig", "down", "one")
	pings(t, "--rig", "two")
	if r := must(t, exit.Machine, "rig", "exec", "a", "true"); !strings.Contains(r.err, "there is two") {
		t.Errorf("said %q", r.err)
	}
}

// TestRigMistakes: what the user gave is looked at before anything is made.
func TestRigMistakes(t *testing.T) {
	needRig(t)
	file := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(file, []byte("sas: [{}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, flags := range map[string][]string{
		"mlx5-crypto":          {"--profile", "mlx6"},
		"x.yaml:1":             {"-c", file},
		"built-in":             {"-c", file, "--clear-answers"},
		"letters":              {"a/b"},
		"unexpected argument":  {"a", "b"},
		"no such file":         {"-c", file + "x"},
		"unknown flag: --slit": {"--slit"},
	} {
		r := do(t, append([]string{"rig", "up"}, flags...)...)
		if r.code != exit.Input || !strings.Contains(r.err, want) {
			t.Errorf("%v: exit code %d, said %q", flags, r.code, r.err)
		}
	}
	if len(rigProcesses(t)) > 0 {
		t.Error("something was started")
	}
}

// TestRigRootless does it all as a user without privileges, in namespaces of users. The tun device is
// one that this test makes for everybody in a mount namespace of its own.
func TestRigRootless(t *testing.T) {
	needRig(t)
	if os.Geteuid() != 0 {
		t.Skip("the other tests did without root")
	}
	needProgram(t, "setpriv")
	needProgram(t, "tcpdump")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "tapsec")
	const nobody = 65534
	if err := errors.Join(os.WriteFile(program, self, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Mkdir(filepath.Join(dir, "run"), 0o700),
		os.Chown(filepath.Join(dir, "run"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-ec", `
mount -n -t tmpfs tapsec /mnt && mknod -m 666 /mnt/tun c 10 200 && mount -n --bind /mnt/tun /dev/net/tun || exit 99
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all sh -ec '
unshare -Ur true || exit 99
said=$(tapsec rig up)
echo "$said"
sh -c "$LOOK" sh "$(echo "$said" | grep tcpdump)" default
tapsec rig exec a -- ping -c1 -W60 10.77.0.2
tapsec rig exec b -- ping -c1 -W60 fd77::1
tapsec rig status
echo "exit $(tapsec rig exec nic -- sh -c "id -u; exit 3" || echo $?)"
tapsec rig down'`)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LOOK="+lookScript, "PATH="+dir+":"+os.Getenv("PATH"), "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 99 {
		rig.Missing(t, "needs user namespaces and mknod: "+string(out))
	}
	if err != nil || strings.Count(string(out), "without root") != 2 || strings.Count(string(out), "1 received") != 2 || !strings.Contains(string(out), "ESP(spi=0x") || !strings.Contains(string(out), "exit 0\n3") {
		t.Errorf("%v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run", "*")); len(left) > 0 || len(rigProcesses(t)) > 0 {
		t.Errorf("left behind: %q, %q", left, rigProcesses(t))
	}
}

// TestRigConfiguration: the generated configuration is a valid one for every profile, each time with
// other keys.
func TestRigConfiguration(t *testing.T) {
	for _, profile := range sa.Profiles {
		for _, answers := range []bool{true, false} {
			text := configs.Rig(profile, answers)
			c, err := configs.Parse("rig.yaml", text)
			if err != nil {
				t.Fatal(err)
			}
			if c.Profile.Name != profile.Name || len(c.SAs) != map[bool]int{true: 6, false: 3}[answers] {
				t.Errorf("profile %s, %d SAs", c.Profile.Name, len(c.SAs))
			}
			if bytes.Equal(text, configs.Rig(profile, answers)) || bytes.Contains(text, []byte("000102030405")) {
				t.Error("keys that are known")
			}
		}
	}
}
