package tap

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// between makes two veths, of which one end each is attached, "xa" and "xb", and a worker from the first to
// the second. What enters by "xa-far" leaves by "xb-far".
func between(t *testing.T, engine Engine) (a, b *Device, l *single) {
	t.Helper()
	if rig.Require(t); engine == XDP {
		requireXDP(t)
	}
	remove, err := rig.QuietVeths(1500, "xa", "xb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove() })
	receiveOn(t, rig.FarEnd("xb"), "1") // else there may be two cores, and two orders
	if a, err = Attach("xa"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = Attach("xb"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b, link(t, Options{Engine: engine}, a, b, 1522, 64)
}

// senders runs a test on the engines that send by memory shared with the kernel.
func senders(t *testing.T, test func(t *testing.T, engine Engine)) {
	for _, engine := range []Engine{Ring, Direct, XDP} {
		t.Run(engine.String(), func(t *testing.T) { test(t, engine) })
	}
}

// Every frame of a stream of all sizes arrives once, in order, whatever comes between: more than the memory
// holds chunks in all.
func TestSharedMemoryConserves(t *testing.T) { senders(t, testSharedMemoryConserves) }

func testSharedMemoryConserves(t *testing.T, engine Engine) {
	_, b, l := between(t, engine)
	in, out := testkit.Listen(t, rig.FarEnd("xa")), testkit.Listen(t, rig.FarEnd("xb"))
	const bursts, each = 200, 97
	want := 0
	for burst := range bursts {
		for i := range each {
			if err := in.Send(frame(burst*each+i, 60+(burst*31+i*17)%1455)); err != nil {
				t.Fatal(err)
			}
		}
		move(t, l, each, func(int, []byte) {})
		for i := range each {
			got, err := out.Receive(patience)
			if err != nil || !bytes.Equal(got, frame(burst*each+i, 60+(burst*31+i*17)%1455)) {
				t.Fatalf("frame %d: %x, %v", burst*each+i, got[:min(len(got), 20)], err)
			}
			want++
		}
	}
	if got := l.Tally(); got.In != uint64(want) || got.Out != uint64(want) || got.Oversize+got.TooLong+got.Refused+got.HostDown != 0 || got.Kept != 0 {
		t.Errorf("%+v", got)
	}
	if drops, err := b.Drops(); err != nil || drops.Tx != 0 {
		t.Errorf("%+v, %v", drops, err)
	}
}

// What no chunk is left for the kernel drops, and it is told; what was there before comes, in order.
func TestXDPIsFull(t *testing.T) {
	a, _, l := between(t, XDP)
	in := testkit.Listen(t, rig.FarEnd("xa"))
	chunks := len(a.xdp.queues[0].received.entries)
	for i := range chunks + 1000 {
		if err := in.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if drops, err := a.Drops(); err != nil || drops.Tx != 1000 {
			t.Fatalf("%+v, %v", drops, err)
		}
	}
	move(t, l, chunks, func(i int, f []byte) {
		if !bytes.Equal(f, frame(i, 60)) {
			t.Fatalf("frame %d: %x", i, f[:20])
		}
	})
	if err := in.Send(frame(7, 60)); err != nil {
		t.Fatal(err)
	}
	move(t, l, 1, func(_ int, f []byte) {
		if !bytes.Equal(f, frame(7, 60)) {
			t.Errorf("afterwards: %x", f)
		}
	})
	if got := l.Tally(); got.In != uint64(chunks)+1 || got.Oversize != 0 {
		t.Errorf("%+v", got)
	}
}

// What came before the program was there, and what comes by a queue that it does not have, is received,
// too.
func TestXDPBesideThePacketSocket(t *testing.T) {
	requireXDP(t)
	ip(t, "link add xq numrxqueues 4 numtxqueues 4 type veth peer name xq-far numrxqueues 4 numtxqueues 4")
	t.Cleanup(func() { netns.Delete("xq") })
	if err := errors.Join(netns.Up("xq"), netns.Up("xq-far"), netns.Ready("xq", "xq-far")); err != nil {
		t.Fatal(err)
	}
	d, err := Attach("xq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	far := testkit.Listen(t, "xq-far")
	for i := range 10 {
		if err := far.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	l := link(t, Options{Engine: XDP}, d, d, 1522, 64)
	for i := range 4 * 10 { // of which the first queue has some
		f := frame(10+i, 60)
		copy(f[6:12], []byte{2, 8, 8, 8, 8, byte(i)})
		if err := far.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	move(t, l, 5*10, func(i int, f []byte) {
		if i < 10 && !bytes.Equal(f, frame(i, 60)) {
			t.Errorf("frame %d of before: %x", i, f)
		}
	})
	seen := map[byte]bool{}
	const count = 200
	for i := range count {
		f := frame(i, 60)
		copy(f[6:12], []byte{2, 7, 7, 7, byte(i), byte(i >> 8)}) // the kernel chooses a queue by it
		if err := far.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	move(t, l, count, func(_ int, f []byte) { seen[f[10]] = true })
	if len(seen) != count {
		t.Errorf("%d of %d frames", len(seen), count)
	}
}

// The machine's own stack gets nothing: not even a packet socket sees a frame.
func TestXDPTakesFramesFromTheStack(t *testing.T) {
	_, _, l := between(t, XDP)
	own, in := testkit.Listen(t, "xa"), testkit.Listen(t, rig.FarEnd("xa"))
	for i := range 5 {
		if err := in.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	move(t, l, 5, func(int, []byte) {})
	l.Stop()
	if got, err := own.Receive(50 * time.Millisecond); err == nil {
		t.Errorf("%x", got)
	}
}

// Contract, The system: what the interface loses is counted, by kind, and what comes behind it goes: longer
// than the MTU is as it is now, and for one that is down.
func TestSharedMemoryLosesAndCounts(t *testing.T) { senders(t, testSharedMemoryLosesAndCounts) }

func testSharedMemoryLosesAndCounts(t *testing.T, engine Engine) {
	_, _, l := between(t, engine)
	far := testkit.Listen(t, rig.FarEnd("xb"))
	long := frame(2, 1515)
	send := func(frames ...[]byte) {
		if err := within(t, func() error { return l.Direction.Send(frames) }); err != nil {
			t.Fatal(err)
		}
	}
	arrive := func(frames ...[]byte) {
		t.Helper()
		for _, want := range frames {
			for {
				got, err := far.Receive(patience)
				if errors.Is(err, unix.ENETDOWN) || err == nil && !bytes.HasPrefix(got, header[:12]) {
					continue // the machine's own
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
				}
				break
			}
		}
	}
	tag := tagged(frame(3, 1514), "\x81\x00\x00\x05")
	send(frame(1, 60), long, tag, frame(4, 61))
	arrive(frame(1, 60), tag, frame(4, 61))
	if err := rig.Down("xb"); err != nil {
		t.Fatal(err)
	}
	send(frame(5, 60), frame(6, 60))
	if err := errors.Join(netns.Up("xb"), netns.Ready("xb", rig.FarEnd("xb"))); err != nil {
		t.Fatal(err)
	}
	send(frame(7, 60))
	arrive(frame(7, 60))
	if got, want := l.Tally(), (Tally{Out: 4, OutBytes: 60 + 1518 + 61 + 60, TooLong: 1, HostDown: 2, Kept: -7}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := errors.Join(netns.SetMTU("xb", 900), netns.SetMTU(rig.FarEnd("xb"), 900)); err != nil {
		t.Fatal(err)
	}
	send(frame(8, 60), frame(9, 1000), frame(10, 60))
	arrive(frame(8, 60), frame(10, 60))
	if got := l.Tally(); got.TooLong != 2 || got.Out != 6 || got.Refused != 0 {
		t.Errorf("%+v", got)
	}
	if err := errors.Join(netns.SetMTU("xb", 1500)); err != nil { // and the other end drops what is longer
		t.Fatal(err)
	}
	send(frame(8, 60), frame(9, 1000), frame(10, 60))
	arrive(frame(8, 60), frame(10, 60))
	if err := rig.Down(rig.FarEnd("xb")); err != nil {
		t.Fatal(err)
	}
	await(t, "the kernel's notice", func() bool {
		b, err := net.InterfaceByName("xb")
		return err == nil && b.Flags&net.FlagRunning == 0
	})
	send(frame(11, 60), frame(12, 60))
	lost := uint64(2) // without a carrier; to a packet socket it shows in no way
	if engine == Ring {
		lost = 0
	}
	if got := l.Tally(); got.TooLong != 2 || got.Out != 10-lost || got.Refused != 1 || got.HostDown != 2+lost || got.Retries == 0 {
		t.Errorf("%+v", got)
	}
	if err := netns.Delete("xb"); err != nil {
		t.Fatal(err)
	}
	if err := l.Direction.Send([][]byte{frame(11, 60), frame(12, 60)}); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "xb") {
		t.Error(err)
	}
	if got := l.Tally(); got.HostDown != 4+lost {
		t.Errorf("%+v", got)
	}
}

// An interface whose other end goes down and up while frames flow loses what it may, and none is sent twice,
// or before one that was sent earlier.
func TestSharedMemoryKeepsOrderThroughRefusals(t *testing.T) {
	senders(t, testSharedMemoryKeepsOrderThroughRefusals)
}

func testSharedMemoryKeepsOrderThroughRefusals(t *testing.T, engine Engine) {
	_, _, l := between(t, engine)
	far := testkit.Listen(t, rig.FarEnd("xb"))
	sent := make(chan error, 1)
	const count = 40000
	go func() {
		for i := 0; i < count; i += 50 {
			var frames [][]byte
			for j := range 50 {
				f := frame(0, 64)
				f[20], f[21], f[22] = byte((i+j)>>16), byte((i+j)>>8), byte(i+j)
				frames = append(frames, f)
			}
			if err := l.Direction.Send(frames); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	stop := make(chan struct{})
	flapped := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				flapped <- nil
				return
			default:
			}
			if err := errors.Join(rig.Down("xb"), netns.Up("xb")); err != nil {
				flapped <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	last, got := -1, uint64(0)
	var ended error
	for running := true; ; {
		f, err := far.Receive(20 * time.Millisecond)
		switch {
		case err == nil && len(f) == 64 && f[14] == frame(0, 64)[14]:
			i := int(f[20])<<16 | int(f[21])<<8 | int(f[22])
			if i <= last {
				t.Fatalf("%d after %d", i, last)
			}
			last, got = i, got+1
		case err != nil && !running:
			if tally := l.Tally(); ended != nil || tally.Out+tally.HostDown+tally.Refused != count || got > tally.Out {
				t.Errorf("%d of %+v arrived, %v", got, tally, ended)
			}
			return
		case err != nil:
			select {
			case ended = <-sent:
				close(stop)
				if err := <-flapped; err != nil {
					t.Error(err)
				}
				running = false
			default:
			}
		}
	}
}

// An interface whose MTU is raised while frames flow takes those that no slot or chunk has room for, in their
// place, and loses those that are too long.
func TestSharedMemorySendsLongFrames(t *testing.T) {
	for _, engine := range []Engine{Ring, Direct} { // the other takes no such MTU
		t.Run(engine.String(), func(t *testing.T) { testSharedMemorySendsLongFrames(t, engine) })
	}
}

func testSharedMemorySendsLongFrames(t *testing.T, engine Engine) {
	_, _, l := between(t, engine)
	if err := errors.Join(netns.SetMTU(rig.FarEnd("xb"), 9000), netns.SetMTU("xb", 9000)); err != nil {
		t.Fatal(err)
	}
	far := testkit.Listen(t, rig.FarEnd("xb"))
	const count = 3 * Batch
	size := func(i int) int { return []int{60, 1514, 9014, 2049, 2048, 5000, 5001, 61}[i%8] }
	for i := 0; i < count; i += Batch {
		frames := [][]byte{frame(i, 9015)}
		for j := range Batch - 1 {
			frames = append(frames, frame(i+j, size(i+j)))
		}
		if err := within(t, func() error { return l.Direction.Send(frames) }); err != nil {
			t.Fatal(err)
		}
		for j := range Batch - 1 {
			got, err := far.Receive(patience)
			if err != nil || !bytes.Equal(got, frame(i+j, size(i+j))) {
				t.Fatalf("frame %d: %d bytes, %v; want %d", i+j, len(got), err, size(i+j))
			}
		}
	}
	if err := rig.Down("xb"); err != nil {
		t.Fatal(err)
	}
	if err := within(t, func() error { return l.Direction.Send([][]byte{frame(1, 5000), frame(2, 60)}) }); err != nil {
		t.Fatal(err)
	}
	if got := l.Tally(); got.Out != count-3 || got.TooLong != 3 || got.HostDown != 2 || got.Refused != 0 {
		t.Errorf("%+v", got)
	}
}

// Both ways at once, by workers that come and go. The machine's own stack hears what comes, no program is
// loaded, and interfaces are left as they were. A second one on the same interface is refused in a sentence.
func TestDirectBothWays(t *testing.T) {
	a, b, l := between(t, Direct)
	l.end()
	was := features(t, "xa") + features(t, "xb")
	own, ends := testkit.Listen(t, "xa"), []*rig.Socket{testkit.Listen(t, rig.FarEnd("xa")), testkit.Listen(t, rig.FarEnd("xb"))}
	for round := range 3 {
		workers, err := Join(a, b, 0, Options{Engine: Direct, Room: 1522, Tail: 64})
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range workers {
			if kind, why := w.Engine(); kind != Direct || !strings.Contains(why, "leaves x"+string("ba"[i])) {
				t.Errorf("%v: %s", kind, why)
			}
			if err := ends[i].Send(frame(round, 100)); err != nil {
				t.Fatal(err)
			}
			move(t, &single{w, w.Directions()[0]}, 1, func(int, []byte) {})
			if got, err := ends[1-i].Receive(patience); err != nil || !bytes.Equal(got, frame(round, 100)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
		if got, err := own.Receive(patience); err != nil || !bytes.Equal(got, frame(round, 100)) {
			t.Errorf("the machine's own stack gets %d bytes, %v", len(got), err)
		}
		other, err := Attach("xb")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Join(other, other, 0, Options{Engine: Direct, Room: 1522}); err == nil || !strings.Contains(err.Error(), "xb: another program") {
			t.Error(err)
		}
		other.Close() // and is no longer promiscuous
		if features(t, "xa")+features(t, "xb") != was {
			t.Error("interfaces are not as they were")
		}
		for _, w := range workers {
			w.Stop()
			if _, _, err := w.Next(); err != ErrStopped {
				t.Error(err)
			}
		}
	}
}

// features are what ethtool says of an interface, and the program that it has.
func features(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("ethtool", "-k", name).CombinedOutput()
	if err != nil {
		rig.Missing(t, "needs ethtool: "+string(out))
	}
	link, err := exec.Command("ip", "-d", "link", "show", name).CombinedOutput()
	if err != nil {
		t.Fatal(err, string(link))
	}
	return string(out) + string(link)
}

// The program is the interface's for as long as a worker or the device is open, and leaves it as it was.
// While it is there nobody else gets AF_XDP on it, and is told.
func TestXDPLeavesTheInterface(t *testing.T) {
	requireXDP(t)
	remove, err := rig.QuietVeths(1500, "xd")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	flags := func() uint32 {
		i, err := net.InterfaceByName("xd")
		if err != nil {
			t.Fatal(err)
		}
		return uint32(i.Flags)
	}
	near, far, was := features(t, "xd"), features(t, rig.FarEnd("xd")), flags()
	d, err := Attach("xd")
	if err != nil {
		t.Fatal(err)
	}
	workers, err := Join(d, d, 0, Options{Engine: XDP, Room: 1522, Tail: 64})
	if err != nil {
		t.Fatal(err)
	}
	if kind, why := workers[0].Engine(); kind != XDP || !strings.Contains(why, "driver") {
		t.Errorf("%v: %s", kind, why)
	}
	if !strings.Contains(features(t, "xd"), "prog/xdp") {
		t.Error("there is no program")
	}
	other, err := Attach("xd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(other, other, 0, Options{Engine: XDP, Room: 1522}); err == nil || !strings.Contains(err.Error(), "another program") || !strings.Contains(err.Error(), "xd") {
		t.Error(err)
	}
	if err := errors.Join(other.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	await(t, "the interface as it was", func() bool {
		return features(t, "xd") == near && features(t, rig.FarEnd("xd")) == far && flags() == was
	})
}

// Where the driver runs no program it is in front of the stack, where frames may be merged: such a one has
// no chunk, which is counted, and the next is received.
func TestXDPInFrontOfTheStack(t *testing.T) {
	requireXDP(t)
	ip(t, "link add xg type bridge mcast_snooping 0")
	t.Cleanup(func() { netns.Delete("xg") })
	ip(t, "link add xp type veth peer name xp-far")
	t.Cleanup(func() { netns.Delete("xp") })
	ip(t, "link set xp master xg")
	if err := errors.Join(netns.Up("xg"), netns.Up("xp"), netns.Up("xp-far"), netns.Ready("xg", "xp", "xp-far")); err != nil {
		t.Fatal(err)
	}
	d, err := Attach("xg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	workers, err := Join(d, d, 0, Options{Engine: XDP, Room: 1 << 16, Tail: 64})
	if err != nil {
		t.Fatal(err)
	}
	if kind, why := workers[1].Engine(); kind != XDP || !strings.Contains(why, "in front of") {
		t.Errorf("%v: %s", kind, why)
	}
	l := &single{workers[0], workers[0].Directions()[0]}
	merged, start := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, 3000))
	leaveOpen(t, merged, 14)
	if err := openOffload(t, "xp-far").send(unix.VIRTIO_NET_HDR_GSO_TCPV4, 600, start, 16, merged); err != nil {
		t.Fatal(err)
	}
	last := frame(1, 60)
	if err := testkit.Listen(t, "xp-far").Send(last); err != nil {
		t.Fatal(err)
	}
	for came := false; !came; {
		move(t, l, 1, func(_ int, f []byte) { came = came || bytes.Equal(f, last) }) // there may be the bridge's own
	}
	l.Stop()
	for err == nil {
		_, err = l.Receive()
	}
	if got := l.Tally(); got.Oversize != 1 || err != ErrStopped {
		t.Errorf("%+v, %v", got, err)
	}
}

// What cannot be is refused in a sentence that says what to do, and leaves the interface alone.
func TestXDPRefuses(t *testing.T) {
	requireXDP(t)
	remove, err := rig.QuietVeths(9000, "xl")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	long, err := Attach("xl")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	two := openTAP(t, Config{Name: "xu"})
	for what, c := range map[string]struct {
		a, b  *Device
		words string
	}{
		"a long MTU":   {long, two, "xl has an MTU of 9000, and AF_XDP takes frames of 3840 bytes: lower it, or choose ring"},
		"no interface": {two, two, "for interfaces that are attached"},
	} {
		for _, engine := range []Engine{XDP, Direct} {
			_, err := Join(c.a, c.b, 0, Options{Engine: engine, Room: 1522})
			if engine == Direct && c.a == long {
				continue // which takes any MTU
			}
			if err == nil || !strings.HasPrefix(err.Error(), "engine "+engine.String()) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if strings.Contains(features(t, "xl"), "prog/xdp") {
		t.Error("a program was left")
	}
}
