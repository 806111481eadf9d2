package rig

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
	"tapsec/tap"
)

// roleVar makes the test binary, run once more, play a part instead of testing.
const roleVar = "TAPSEC_RIG_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVar); {
	case role == "":
		Main(m)
	case !Inside():
		code, err := reexec(strings.HasPrefix(role, "root"), nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		os.Exit(code)
	default:
		play(role)
	}
}

// play is what the grandchild does inside the namespaces of a role.
func play(role string) {
	switch {
	case role == guestRole:
		stand(os.Args[1], os.Args[2:])
	case strings.HasSuffix(role, "signal"):
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGTERM)
		fmt.Println("ready")
		<-signals
		os.Exit(7)
	case strings.HasSuffix(role, "killed"):
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case strings.HasSuffix(role, "work"):
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(5)
	}
}

// work does inside what only a rig's root may do.
func work() error {
	if err := Setup(); err != nil {
		return err
	}
	if err := netns.AddTAP("tap0", false); err != nil {
		return err
	}
	ns, err := netns.New("far")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Take("tap0"); err != nil {
		return err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	if len(interfaces) != 1 || interfaces[0].Flags&net.FlagUp == 0 {
		return fmt.Errorf("want lo alone, and up; have %v", interfaces)
	}
	return nil
}

// again runs this test binary outside the test's rig variables, in a role.
func again(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, insideVar+"=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, roleVar+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestReexecBothWays(t *testing.T) {
	Require(t)
	for _, role := range []string{"root work", "rootless work"} {
		if got := code(again(t, role).Run()); got != 5 {
			t.Errorf("%s: exit code %d, want 5", role, got)
		}
	}
	if got := code(again(t, "rootless killed").Run()); got != 128+9 {
		t.Errorf("killed: exit code %d, want 137", got)
	}
}

func TestReexecPassesSignals(t *testing.T) {
	Require(t)
	passes(t, again(t, "rootless signal"), unix.SIGTERM)
}

// What nohup(1) keeps from a program, it keeps from that in the rig, too.
func TestReexecUnderNohup(t *testing.T) {
	Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := again(t, "rootless signal")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0"`, self}
	passes(t, cmd, unix.SIGHUP, unix.SIGTERM)
}

// passes sends signals to a program in a rig once it is there. It ends by the SIGTERM among them.
func passes(t *testing.T, cmd *exec.Cmd, signals ...unix.Signal) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	for _, s := range signals {
		cmd.Process.Signal(s)
	}
	if got := code(cmd.Wait()); got != 7 {
		t.Errorf("exit code %d, want the child's own 7", got)
	}
}

func TestRefusalSaysWhatToDo(t *testing.T) {
	for err, word := range map[error]string{unix.EPERM: "unprivileged_userns_clone", unix.ENOSPC: "max_user_namespaces", unix.EINVAL: "kernel"} {
		got := refusal(&os.PathError{Op: "fork/exec", Path: "x", Err: err})
		if !errors.Is(got, ErrRefused) || !strings.Contains(got.Error(), word) {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// The kernel's own limit makes a real refusal: a user namespace may be told to have no others in it.
func TestReexecRefused(t *testing.T) {
	Require(t)
	const limit = "/proc/sys/user/max_net_namespaces"
	before, err := os.ReadFile(limit)
	if err != nil {
		Missing(t, err.Error())
	}
	cmd := exec.Command("unshare", "-Urm", "sh", "-c", "echo 0 >"+limit+" && exec \"$0\"", "/proc/self/exe")
	cmd.Args[len(cmd.Args)-1] = os.Args[0]
	cmd.Env = again(t, "rootless work").Env
	out, err := cmd.CombinedOutput()
	if code(err) != 99 || !bytes.Contains(out, []byte("limit")) {
		t.Errorf("exit %v, said %q; want 99 and the limit named", err, out)
	}
	if after, _ := os.ReadFile(limit); !bytes.Equal(after, before) {
		t.Errorf("limit outside became %s", after)
	}
}

func TestNeeds(t *testing.T) {
	Require(t)
	for _, n := range Needs() {
		if !n.Met || n.Detail == "" || n.Remedy != "" {
			t.Errorf("inside a rig: %+v", n)
		}
	}
}

func TestNamespaceDoComesBack(t *testing.T) {
	Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var inside string
	err = ns.Do(func() error {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	outside, err2 := os.Readlink("/proc/thread-self/ns/net")
	if err != nil || err2 != nil || inside == outside {
		t.Errorf("inside %s, outside %s, errors %v, %v", inside, outside, err, err2)
	}
	if _, err := netns.Open("nobody"); err == nil || !strings.Contains(err.Error(), "ip netns add nobody") {
		t.Errorf("unknown name: %v", err)
	}
}

// A TAP that goes with its program stays where it was opened: moved, it could vanish while the
// namespace that it is in ends.
func TestTakeLeavesWhatVanishes(t *testing.T) {
	Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	d, err := tap.Open(tap.Config{Name: "tap7"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := ns.Take("tap7"); err == nil || !strings.Contains(err.Error(), "open it inside") {
		t.Errorf("moved: %v", err)
	}
	if _, err := net.InterfaceByName("tap7"); err != nil {
		t.Error(err)
	}
}

// A veth pair is the nearest interface with two ends.
func TestSocketWholeFrames(t *testing.T) {
	Require(t)
	if out, err := exec.Command("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer netns.Delete("va")
	for _, name := range []string{"va", "vb"} {
		if err := errors.Join(netns.SetMTU(name, 1600), netns.Up(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := netns.Ready("va", "vb"); err != nil {
		t.Fatal(err)
	}
	a, b := openSocket(t, "va"), openSocket(t, "vb")
	header := []byte("\x02\x00\x00\x00\x00\x0b\x02\x00\x00\x00\x00\x0a")
	for name, rest := range map[string][]byte{
		"plain":   append([]byte{0x88, 0xb5}, bytes.Repeat([]byte{7}, 1500)...),
		"trailer": append([]byte{0x08, 0x00, 0x45}, bytes.Repeat([]byte{9}, 1510)...),
		"tag":     append([]byte{0x81, 0x00, 0x20, 0x05, 0x88, 0xb5}, make([]byte, 50)...),
		"QinQ":    append([]byte{0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x08, 0x88, 0xb5}, make([]byte, 50)...),
	} {
		frame := append(bytes.Clone(header), rest...)
		if err := a.Send(frame); err != nil {
			t.Fatal(name, err)
		}
		got, err := b.Receive(time.Minute)
		if err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%s: %v, got %x, want %x", name, err, got, frame)
		}
	}
	if got, err := a.Receive(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sender saw %x, %v: outgoing frames or noise", got, err)
	}
}

func openSocket(t *testing.T, name string) *Socket {
	t.Helper()
	s, err := OpenSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestAddressNeighbourRoute(t *testing.T) {
	Require(t)
	if err := errors.Join(netns.AddTAP("tapa", true), SetMAC("tapa", net.HardwareAddr{2, 0, 0, 0, 0, 1}), netns.Up("tapa")); err != nil {
		t.Fatal(err)
	}
	defer netns.Delete("tapa")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	err := errors.Join(
		netns.Address("tapa", netip.MustParsePrefix("192.0.2.1/24")),
		netns.Address("tapa", netip.MustParsePrefix("2001:db8::1/64")),
		Neighbour("tapa", netip.MustParseAddr("192.0.2.2"), mac),
		Neighbour("tapa", netip.MustParseAddr("2001:db8::2"), mac),
		Route("tapa", netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("192.0.2.2")),
		Route("tapa", netip.MustParsePrefix("203.0.113.0/24"), netip.Addr{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "ip route; ip neigh; ip -6 neigh; ip addr show tapa").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"198.51.100.0/24 via 192.0.2.2", "203.0.113.0/24 dev tapa", "192.0.2.2 dev tapa lladdr 02:00:00:00:00:02 PERMANENT",
		"2001:db8::2 dev tapa lladdr 02:00:00:00:00:02 PERMANENT", "inet6 2001:db8::1/64"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "fe80") {
		t.Errorf("interface made itself an address:\n%s", out)
	}
}
