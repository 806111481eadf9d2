package test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/status"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// confinement is the document "status", as far as it is looked at here.
type confinement struct {
	Confinement struct {
		Capabilities []string
		NoNewPrivs   bool `json:"no_new_privs"`
		Files        bool
		Landlock     int `json:"landlock_abi"`
		Seccomp      string
		Dumpable     bool
	}
}

// sockets is a directory for sockets, whose names are short.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tapsec")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func ask(t *testing.T, socket string) (c confinement) {
	t.Helper()
	client, err := control.Dial(socket)
	if err == nil {
		err = client.Get("status", &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// powerless compares what the program says of itself with what others see: no
// thread has a capability, each has the filter, and no core is written.
func powerless(t *testing.T, p *process, socket string) {
	t.Helper()
	pid := p.cmd.Process.Pid
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 4 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !bytes.Contains(text, []byte(want+"\n")) {
				t.Fatalf("%s: not %q: %v\n%s", task, want, err, text)
			}
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("%v\n%s", err, limits)
	}
	if c := ask(t, socket).Confinement; len(c.Capabilities) > 0 || !c.NoNewPrivs || !c.Files && c.Landlock > 0 || c.Seccomp != "filter" || c.Dumpable {
		t.Errorf("the program says of itself %+v", c)
	}
}

// TestConfined: the program at work, confined, does all that it is to do, with
// either engine, with several queues and in other namespaces: it moves frames,
// rereads its file, edited or replaced, and a key file, answers on its control
// socket, and leaves nothing behind.
func TestConfined(t *testing.T) {
	rig.Require(t)
	for name, flags := range map[string][]string{
		"ring": {"--engine", "ring"}, "plain": {"--engine", "plain"}, "two queues": {"--queues", "2"}, "one": {},
		"namespaces": {"--wire-netns", "outside", "--host-netns", "inside"},
	} {
		t.Run(name, func(t *testing.T) {
			wireIn, hostIn := "", ""
			if name == "namespaces" {
				testkit.NewStack(t, "outside")
				testkit.NewStack(t, "inside")
				wireIn, hostIn = "outside", "inside"
			}
			path, socket := write(t, headSA), filepath.Join(sockets(t), "control")
			p := start(t, path, append(flags, "--control", socket)...)
			wire, host := listenAt(t, wireIn, "wire0"), listenAt(t, hostIn, "host0")
			powerless(t, p, socket)
			m := newMixer(t)
			round := func(word status.Word, reason status.Reason) {
				t.Helper()
				s := m.sample(0, 100)
				if s.word, s.reason = word, reason; word == 0 {
					s.payload = nil
				}
				wire.send(s.frame)
				host.check(s)
			}
			round(0, status.NoSA)
			rewrite(t, path, moreSAs)
			p.signal(unix.SIGHUP)
			p.waitLog("msg=reloaded")
			round(0x2, status.Verified)
			replace(t, path, headSA)
			p.signal(unix.SIGHUP)
			p.waitLog("msg=reloaded")
			round(0, status.SADeleted)
			key := "0x101112131415161718191a1b1c1d1e1fb1b2b3b4"
			replace(t, filepath.Join(filepath.Dir(path), "web.key"), key)
			replace(t, path, strings.Replace(moreSAs, key, "file:web.key", 1))
			p.signal(unix.SIGHUP)
			p.waitLog("msg=reloaded")
			round(0x2, status.Verified)
			powerless(t, p, socket)
			sum := readSummary(t, p.stop())
			if len(sum["wire0"]) != 2 || len(sum["host0"]) != 2 {
				t.Errorf("the kernel's drops are missing: %v", sum)
			}
			absent(t, "wire0", "host0")
			if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the control socket is left: %v", err)
			}
		})
	}
}

func listenAt(t *testing.T, namespace, name string) port {
	t.Helper()
	if namespace == "" {
		return listen(t, name)
	}
	return listenIn(t, namespace, name)
}

// replace puts another file in the place of one, as careful programs write.
func replace(t *testing.T, path, text string) {
	t.Helper()
	rewrite(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestConfinedElsewhere: a file that the program was not told of at start it
// cannot read, and the log says why.
func TestConfinedElsewhere(t *testing.T) {
	rig.Require(t)
	path, elsewhere := write(t, headSA), write(t, moreSAs)
	p := start(t, path)
	if err := errors.Join(os.Remove(path), os.Symlink(elsewhere, path)); err != nil {
		t.Fatal(err)
	}
	p.signal(unix.SIGHUP)
	if said := p.waitLog("reload refused"); !strings.Contains(said, "restart it to read others") {
		t.Error(said)
	}
	p.stop()
}

// TestUnconfined: it can be switched off.
func TestUnconfined(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "control")
	p := start(t, write(t, headSA), "--control", socket, "--confine=false")
	if c := ask(t, socket).Confinement; c.Files || c.Seccomp != "disabled" || len(c.Capabilities) == 0 || !c.Dumpable {
		t.Errorf("%+v", c)
	}
	p.stop()
}

// TestConfinedTransport: the state is saved, and the addresses of the stack are
// followed in their namespace, also where its interface is renamed.
func TestConfinedTransport(t *testing.T) {
	rig.Require(t)
	ns := testkit.NewStack(t, "inside")
	dir := sockets(t)
	state, socket := filepath.Join(dir, "state.json"), filepath.Join(dir, "control")
	p := start(t, write(t, moreSAs), "--transport", "stack0", "--stack-netns", "inside", "--state", state, "--control", socket)
	powerless(t, p, socket)
	saved := modified(t, state)
	address := func(interface_, a string) {
		t.Helper()
		if err := ns.Do(func() error { return netns.Address(interface_, netip.MustParsePrefix(a)) }); err != nil {
			t.Fatal(err)
		}
		p.waitLog(a[:strings.Index(a, "/")]) // in the line of the local addresses
	}
	address("stack0", "198.51.100.10/24")
	if _, err := exec.LookPath("ip"); err == nil { // Debian's iproute2
		for _, change := range []string{"stack0 down", "stack0 name renamed0", "renamed0 up"} {
			ip := exec.Command("ip", append([]string{"link", "set"}, strings.Fields(change)...)...)
			if err := ns.Do(ip.Run); err != nil {
				t.Fatalf("%s: %v", ip, err)
			}
		}
		address("renamed0", "198.51.100.11/24")
	}
	for deadline := time.Now().Add(patience); modified(t, state).Equal(saved); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the state is not saved")
		}
	}
	p.stop()
	if text, err := os.ReadFile(state); err != nil || bytes.Contains(text, []byte(`"boot":""`)) || bytes.Contains(text, []byte("up_to")) {
		t.Errorf("%v: %s", err, text)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 { // the state and its lock
		t.Errorf("left behind: %v", left)
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// TestNoKeyInCore: root's debugger writes a core of the program at work without
// the key.
func TestNoKeyInCore(t *testing.T) {
	rig.Require(t)
	gcore, err := exec.LookPath("gcore")
	if err != nil {
		rig.Missing(t, "needs gcore, of Debian's gdb")
	}
	p := start(t, write(t, moreSAs))
	core := filepath.Join(t.TempDir(), "core")
	said, err := exec.Command(gcore, "-o", core, fmt.Sprint(p.cmd.Process.Pid)).CombinedOutput()
	files, _ := filepath.Glob(core + "*")
	if len(files) == 0 {
		rig.Missing(t, fmt.Sprintf("gcore may not look into processes here: %v: %s", err, said))
	}
	text, err := os.ReadFile(files[0])
	for _, s := range sasOf(t, moreSAs) {
		if err != nil || bytes.Contains(text, s.EncryptionKey.Bytes()[:16]) || bytes.Contains(text, []byte(fmt.Sprintf("%x", s.EncryptionKey.Bytes()[:16]))) {
			t.Errorf("the key of %s is in the core of %d bytes, %v", s.Name, len(text), err)
		}
	}
	p.stop()
}

// TestConfinedRootless: all of this holds for root of a user namespace alone.
func TestConfinedRootless(t *testing.T) {
	rig.Require(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^(TestConfined|TestConfinedTransport|TestConfinedElsewhere)$", "-test.v")
	cmd.SysProcAttr = userNamespace(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	said, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(said, []byte("\n--- PASS")) != 3 {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestConfinedTellsTheNIC: a transport by itself, confined, still reaches the
// control socket of its NIC, each time anew: an SA of which the NIC, being full,
// asks to be rid is deleted there.
func TestConfinedTellsTheNIC(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "control")
	path := write(t, "sa_capacity: 2\nlocal: [198.51.100.10]"+moreSAs)
	n := start(t, path, "--control", socket)
	p := launchProgram(t, program.Command("transport", "-c", path, "--in", "host0", "--out", "stack0", "--nic", socket))
	p.waitLog("msg=ready")
	wire, m := listen(t, "wire0"), newMixer(t)
	deleted := func() uint64 {
		t.Helper()
		var nic struct{ Reasons map[string]uint64 }
		client, err := control.Dial(socket)
		if err == nil {
			err = client.Get("nic", &nic)
		}
		if err != nil {
			t.Fatal(err)
		}
		return nic.Reasons[status.SADeleted.String()]
	}
	for deadline := time.Now().Add(patience); deleted() == 0; time.Sleep(10 * time.Millisecond) {
		wire.send(m.sample(0, 100).frame)
		if time.Now().After(deadline) {
			t.Fatal("the NIC was not told")
		}
	}
	p.stop()
	n.stop()
}

// TestNICDoesNotAnswer: a NIC that is behind, and cannot be told so, is asked now and then, not for each frame; it
// learns it in the end, and so of an SA that it wants deleted. No frame is lost.
func TestNICDoesNotAnswer(t *testing.T) {
	rig.Require(t)
	const entry = `
local: [198.51.100.10]
sas:
  - {name: web, spi: 0xc002, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16, esn: true,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4%s}
`
	socket := filepath.Join(sockets(t), "control")
	n := start(t, write(t, fmt.Sprintf(entry, "")), "--control", socket)
	text := fmt.Sprintf(entry, ", seq: 0x100000005")
	p := launchProgram(t, program.Command("transport", "-c", write(t, text), "--in", "host0", "--out", "stack0", "--nic", socket))
	began := p.waitLog("msg=ready")
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	sender := sealer(t, sasOf(t, text)["web"])
	sender.SetNumber(0, 1<<32+6)
	pass := func() {
		t.Helper()
		packet := plain(server, sender.Number(0), 100)
		wire.send(framed(sealed(t, sender, packet)))
		if got := stack.next(); !bytes.Equal(got, framed(packet)) {
			t.Fatalf("got %x", got)
		}
	}
	if err := os.Rename(socket, socket+".away"); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		pass()
	}
	if err := os.Rename(socket+".away", socket); err != nil {
		t.Fatal(err)
	}
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	program.Await(t, "the NIC opens frames itself", func() bool {
		pass()
		var nic struct{ Reasons map[string]uint64 }
		if err := client.Get("nic", &nic); err != nil {
			t.Fatal(err)
		}
		return nic.Reasons[status.Verified.String()] > 0
	})
	p.stop()
	n.stop()
	if said := strings.Count(began+p.logged(), "the NIC was not told"); said == 0 || said > 100 {
		t.Errorf("%d lines say that the NIC was not told", said)
	}
}
