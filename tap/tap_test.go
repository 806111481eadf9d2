package tap

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

func TestMain(m *testing.M) { rig.Main(m) }

// header is an Ethernet header with an EtherType of those kept for experiments.
var header = []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")

// frame makes a numbered frame of so many bytes.
func frame(number, size int) []byte {
	f := append(bytes.Clone(header), byte(number>>8), byte(number))
	return append(f, make([]byte, size-len(f))...)
}

func openTAP(t testing.TB, c Config) *Device {
	t.Helper()
	rig.Require(t)
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// pair opens two interfaces that are up, and a link from the first to the second.
func pair(t testing.TB, how Options, room, tail int) (a, b *Device, l *single) {
	t.Helper()
	a, b = openTAP(t, Config{Name: "ta"}), openTAP(t, Config{Name: "tb"})
	if err := errors.Join(netns.Up("ta"), netns.Up("tb"), netns.Ready("ta", "tb")); err != nil {
		t.Fatal(err)
	}
	return a, b, link(t, how, a, b, room, tail)
}

func exists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// patience is how long anything may take on a machine that has much else to do.
const patience = testkit.Patience

// within fails the test unless do ends, and returns what it returned.
func within(t *testing.T, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("still running after %v", patience)
		return nil
	}
}

// await waits until something is true.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestOpenRefusesNames(t *testing.T) {
	for name, word := range map[string]string{
		"": "1 to 15", ".": "1 to 15", "..": "1 to 15", "sixteen-letters-": "shorten", "a/b": "slashes",
		"a b": "spaces", "tap%d": "percent", "a:b": "colons",
	} {
		if _, err := Open(Config{Name: name}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	openTAP(t, Config{Name: "held"})
	openTAP(t, Config{Name: "heldmany", Queues: 2})
	for _, args := range []string{"tuntap add dev tun mode tun", "link add va type veth peer name vb", "tuntap add dev one mode tap"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	for _, name := range []string{"tun", "va", "one"} {
		t.Cleanup(func() { netns.Delete(name) })
	}
	for _, c := range []struct {
		config Config
		word   string
	}{
		{Config{Name: "held"}, "another program"},
		{Config{Name: "heldmany", Queues: 2}, "another program"},
		{Config{Name: "tun"}, "not a TAP"},
		{Config{Name: "va"}, "not a TAP"},
		{Config{Name: "one", Queues: 2}, "multi_queue"},
		{Config{Name: "many", Queues: 1000}, "fewer"},
		{Config{Name: "mtu", MTU: 70000}, "MTU of 70000"},
	} {
		_, err := Open(c.config)
		if err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
	if exists("many") || exists("mtu") {
		t.Error("a failed Open left its interface behind")
	}
	if !exists("one") || !exists("tun") {
		t.Error("a failed Open took away an interface")
	}
}

// Capabilities are a thread's: the goroutine keeps its own, and the thread ends with it.
func TestOpenWithoutPrivilege(t *testing.T) {
	rig.Require(t)
	err := within(t, func() error {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		_, err := Open(Config{Name: "mine"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Error(err)
	}
}

func TestOpenWithoutDevice(t *testing.T) {
	rig.Require(t)
	if err := unix.Mount("empty", "/dev/net", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Name: "mine"})
	if err := unix.Unmount("/dev/net", 0); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "modprobe tun") {
		t.Error(err)
	}
	if got := explainControl(unix.EACCES).Error(); !strings.Contains(got, "as root") {
		t.Error(got)
	}
}

func TestMadeInterfaceGoesAttachedStays(t *testing.T) {
	made := openTAP(t, Config{Name: "made", MTU: 1400})
	if ifi, err := net.InterfaceByName("made"); err != nil || ifi.MTU != 1400 {
		t.Fatal(ifi, err)
	}
	made.Close()
	if exists("made") {
		t.Error("the interface that Open made outlived Close")
	}
	for name, multi := range map[string]bool{"stays": false, "staysmulti": true} {
		if err := netns.AddTAP(name, multi); err != nil {
			t.Fatal(err)
		}
		defer netns.Delete(name)
		for range 2 {
			d, err := Open(Config{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			if !exists(name) {
				t.Fatalf("%s, which was there before, is gone after Close", name)
			}
		}
	}
}

// A child that inherited the descriptor would keep the interface alive.
func TestChildrenInheritNothing(t *testing.T) {
	d := openTAP(t, Config{Name: "ours"})
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	d.Close()
	if exists("ours") {
		t.Error("a child process holds the interface")
	}
}

func TestReceiveEnds(t *testing.T) { engines(t, testReceiveEnds) }

func testReceiveEnds(t *testing.T, how Options) {
	for name, c := range map[string]struct {
		end  func(d *Device, l *single) error
		want error
	}{
		"closed":  {func(d *Device, l *single) error { return d.Close() }, os.ErrClosed},
		"stopped": {func(d *Device, l *single) error { l.Stop(); return nil }, ErrStopped},
		"deleted": {func(d *Device, l *single) error { return netns.Delete(d.Name()) }, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, l := pair(t, how, 1514, 0)
			received := make(chan error, 2)
			go func() {
				for range 2 {
					_, err := l.Receive()
					received <- err
				}
			}()
			time.Sleep(20 * time.Millisecond) // let it fall asleep
			if err := c.end(a, l); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := within(t, func() error { return <-received })
				if !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
			}
			if name == "closed" && exists(a.Name()) {
				t.Error("the interface outlives its device and the worker")
			}
		})
	}
}

func TestDeletedIsGoneForAll(t *testing.T) { engines(t, testDeletedIsGoneForAll) }

func testDeletedIsGoneForAll(t *testing.T, how Options) {
	_, b, l := pair(t, how, 1514, 0)
	if err := netns.Delete("tb"); err != nil {
		t.Fatal(err)
	}
	frames := [][]byte{frame(1, 60), frame(2, 60)}
	if err := l.Send(frames); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "tb") {
		t.Errorf("Send: %v", err)
	}
	if got := l.Tally().HostDown; got != 2 {
		t.Errorf("%d frames given up, want 2", got)
	}
	if _, err := b.Drops(); !errors.Is(err, ErrGone) {
		t.Errorf("Drops: %v", err)
	}
	if err := b.Up(); !errors.Is(err, ErrGone) {
		t.Errorf("Up: %v", err)
	}
}

func TestDirectionMovesFramesWhole(t *testing.T) { engines(t, testDirectionMovesFramesWhole) }

func testDirectionMovesFramesWhole(t *testing.T, how Options) {
	_, _, l := pair(t, how, 1518, 64)
	in, out := testkit.Listen(t, "ta"), testkit.Listen(t, "tb")
	sizes := []int{14, 59, 60, 1513, 1514}
	for i, size := range sizes {
		if err := in.Send(append(bytes.Clone(header), bytes.Repeat([]byte{byte(i)}, size-14)...)); err != nil {
			t.Fatal(err)
		}
	}
	frames, err := l.Receive()
	if err != nil || len(frames) != len(sizes) {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	for i, f := range frames {
		if cap(f) != 1518+64 {
			t.Errorf("capacity %d, want room and tail", cap(f))
		}
		frames[i] = append(f, "0123456789abcdef"...)
	}
	if err := l.Send(frames); err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		want := append(append(bytes.Clone(header), bytes.Repeat([]byte{byte(i)}, size-14)...), "0123456789abcdef"...)
		if got, err := out.Receive(patience); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %x, %v", size, got, err)
		}
	}
}

// A frame longer than the link's room must not go on cut short.
func TestOversizeIsDiscarded(t *testing.T) { engines(t, testOversizeIsDiscarded) }

func testOversizeIsDiscarded(t *testing.T, how Options) {
	_, _, l := pair(t, how, 100, 0)
	in := testkit.Listen(t, "ta")
	for i, size := range []int{101, 100, 1500, 99} {
		if err := in.Send(frame(i, size)); err != nil {
			t.Fatal(err)
		}
	}
	frames, err := l.Receive()
	if err != nil || len(frames) != 2 || len(frames[0]) != 100 || len(frames[1]) != 99 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
	if got := l.Tally(); got.Oversize != 2 || got.In != 2 {
		t.Errorf("%+v", got)
	}
}

func TestHostDownIsCounted(t *testing.T) { engines(t, testHostDownIsCounted) }

func testHostDownIsCounted(t *testing.T, how Options) {
	_, _, l := pair(t, how, 1514, 0)
	if err := rig.Down("tb"); err != nil {
		t.Fatal(err)
	}
	if err := l.Send([][]byte{frame(1, 60), frame(2, 60)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netns.Up("tb"), netns.Ready("tb")); err != nil {
		t.Fatal(err)
	}
	if err := l.Send([][]byte{frame(3, 60)}); err != nil {
		t.Fatal(err)
	}
	if got := l.Tally(); got.HostDown != 2 || got.Out != 1 {
		t.Errorf("%+v", got)
	}
}

// A socket pair refuses frames when its queue is full, which a TAP does too seldom for a test.
func fullQueue(t *testing.T, how Options) (l *single, peer int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := &Device{name: "pair", queues: []*os.File{os.NewFile(uintptr(fds[0]), "pair")}}
	t.Cleanup(func() { ends.Close(); unix.Close(fds[1]) })
	return link(t, how, ends, ends, 100, 0), fds[1]
}

func TestRefusedFramesAreRetriedInOrder(t *testing.T) { engines(t, testRefusedFramesAreRetriedInOrder) }

func testRefusedFramesAreRetriedInOrder(t *testing.T, how Options) {
	l, peer := fullQueue(t, how)
	const count = 500
	var frames [][]byte
	for i := range count {
		frames = append(frames, frame(i, 60))
	}
	sent := make(chan error, 1)
	go func() { sent <- l.Send(frames) }()
	await(t, "a refusal", func() bool { return l.Tally().Retries > 0 })
	buf := make([]byte, 100)
	for i := range count {
		n, err := unix.Read(peer, buf)
		for ; err == unix.EAGAIN; n, err = unix.Read(peer, buf) {
			time.Sleep(time.Millisecond)
		}
		if err != nil || !bytes.Equal(buf[:n], frame(i, 60)) {
			t.Fatalf("frame %d: got %x, %v", i, buf[:n], err)
		}
	}
	if err := within(t, func() error { return <-sent }); err != nil {
		t.Fatal(err)
	}
	if got := l.Tally(); got.Out != count || got.HostDown != 0 || got.Retries == 0 {
		t.Errorf("%+v", got)
	}
}

func TestStopEndsRetrying(t *testing.T) { engines(t, testStopEndsRetrying) }

func testStopEndsRetrying(t *testing.T, how Options) {
	l, _ := fullQueue(t, how)
	var frames [][]byte
	for i := range 500 {
		frames = append(frames, frame(i, 60))
	}
	time.AfterFunc(20*time.Millisecond, l.Stop)
	if err := within(t, func() error { return l.Send(frames) }); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if got := l.Tally(); got.Out+got.HostDown != 500 || got.HostDown == 0 {
		t.Errorf("%+v", got)
	}
}

func TestJoinWantsTheQueueOnBothSides(t *testing.T) {
	one, two := openTAP(t, Config{Name: "ta"}), openTAP(t, Config{Name: "tb", Queues: 2})
	for _, queue := range []int{-1, 1, 2} {
		if _, err := Join(one, two, queue, Options{Room: 100}); err == nil {
			t.Errorf("queue %d accepted", queue)
		}
	}
	for engine, want := range map[Engine]int{Plain: 2, Ring: 1} {
		workers, err := Join(one, two, 0, Options{Room: 100, Engine: engine})
		if err != nil || len(workers) != want {
			t.Errorf("%v: %d workers, %v", engine, len(workers), err)
		}
	}
}

// The kernel's side may be anywhere: what is asked of it is asked there, and frames still pass.
func TestKernelSideInAnotherNamespace(t *testing.T) { engines(t, testKernelSideInAnotherNamespace) }

func testKernelSideInAnotherNamespace(t *testing.T, how Options) {
	rig.Require(t)
	ns, err := netns.New("far")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.AddTAP("ta", false); err != nil { // one that stays: no other may be moved
		t.Fatal(err)
	}
	a, _, l := pair(t, how, 1514, 0)
	if err := errors.Join(ns.Take("ta"), ns.Do(func() error { return netns.Quiet("ta") }), a.Up(), ns.Do(func() error { return netns.Ready("ta") })); err != nil {
		t.Fatal(err)
	}
	if exists("ta") {
		t.Fatal("ta is still here")
	}
	var in *rig.Socket
	err = ns.Do(func() error {
		in, err = rig.OpenSocket("ta")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := in.Send(frame(7, 60)); err != nil {
		t.Fatal(err)
	}
	if frames, err := l.Receive(); err != nil || len(frames) != 1 || !bytes.Equal(frames[0], frame(7, 60)) {
		t.Fatal(frames, err)
	}
	overflow(t, a, in)
}

// overflow sends more than the interface's queue holds while nobody reads, and wants to see it in
// the kernel's counter.
func overflow(t *testing.T, d *Device, in *rig.Socket) {
	t.Helper()
	before, err := d.Drops()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1200 {
		in.Send(frame(i, 60)) // ENOBUFS where the queue is full: that is the point
	}
	after, err := d.Drops()
	if err != nil || after.Tx <= before.Tx {
		t.Errorf("Tx drops %d, then %d, %v", before.Tx, after.Tx, err)
	}
}

func TestDropsHere(t *testing.T) {
	a := openTAP(t, Config{Name: "ta"})
	if err := errors.Join(netns.Up("ta"), netns.Ready("ta")); err != nil {
		t.Fatal(err)
	}
	overflow(t, a, testkit.Listen(t, "ta"))
}

func TestFindDrops(t *testing.T) {
	const table = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
wire0:18446744073709551615 0 0 18446744073709551615 0 0 0 0 0 0 0 5 0 0 0 0
`
	for name, want := range map[string]Drops{"lo": {4, 12}, "wire0": {1<<64 - 1, 5}} {
		if got, err := findDrops(table, name); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := findDrops(table, "face |bytes"); err == nil {
		t.Error("the heading passed for an interface")
	}
	if _, err := findDrops(table, "gone0"); !errors.Is(err, errElsewhere) {
		t.Error(err)
	}
}

func TestDirectionAllocatesNothing(t *testing.T) { engines(t, testDirectionAllocatesNothing) }

func testDirectionAllocatesNothing(t *testing.T, how Options) {
	_, _, l := pair(t, how, 1518, 64)
	in := testkit.Listen(t, "ta")
	const runs = 6
	for i := range (runs + 1) * Batch {
		if err := in.Send(frame(i, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	allocs := testing.AllocsPerRun(runs, func() {
		frames, err := l.Receive()
		if err != nil || len(frames) != Batch {
			t.Fatal(len(frames), err)
		}
		if err := l.Send(frames); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a batch", allocs)
	}
}
