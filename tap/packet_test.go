package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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

func ip(t testing.TB, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// attached makes a veth of which one end is attached, "near", and a TAP, and links between both. The
// other end of the veth is "far".
func attached(t testing.TB, how Options, room, tail int) (near, tap *Device, in, out *single) {
	t.Helper()
	rig.Require(t)
	ip(t, "link add near type veth peer name far")
	t.Cleanup(func() { netns.Delete("near") })
	tap = openTAP(t, Config{Name: "tb"})
	if err := errors.Join(netns.Up("near"), netns.Up("far"), netns.Up("tb"), netns.Ready("near", "far", "tb")); err != nil {
		t.Fatal(err)
	}
	near, err := Attach("near")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, tap, link(t, how, near, tap, room, tail), link(t, how, tap, near, room, tail)
}

// move moves so many frames along a link, and shows each on its way. A veth's come when the kernel gets
// to them, in any number of batches.
func move(t *testing.T, l *single, count int, look func(i int, f []byte)) {
	t.Helper()
	defer time.AfterFunc(patience, l.Stop).Stop()
	for moved := 0; moved < count; {
		frames, err := l.Receive()
		if err != nil {
			t.Fatalf("after %d frames of %d: %v", moved, count, err)
		}
		for _, f := range frames {
			look(moved, f)
			moved++
		}
		if err := l.Send(frames); err != nil {
			t.Fatal(err)
		}
	}
}

// tagged is a frame with these tags behind its addresses.
func tagged(f []byte, tags ...string) []byte {
	return append(append(bytes.Clone(f[:12]), strings.Join(tags, "")...), f[12:]...)
}

// The kernel takes the outer tag out of what it hands to a packet socket, and out of what a packet
// socket sends; it has to be in the frame on either side. Frames of others, that this machine itself
// sends by the interface, are not the link's.
func TestAttachedMovesFramesWhole(t *testing.T) { attachments(t, testAttachedMovesFramesWhole) }

func testAttachedMovesFramesWhole(t *testing.T, how Options) {
	_, _, in, out := attached(t, how, 1522, 64)
	far, host, own := testkit.Listen(t, "far"), testkit.Listen(t, "tb"), testkit.Listen(t, "near")
	stranger := frame(3, 60)
	copy(stranger, "\x02\x99\x99\x99\x99\x99")
	var sent [][]byte
	for i, f := range [][]byte{frame(0, 60), frame(1, 1514), stranger,
		tagged(frame(4, 60), "\x81\x00\x60\x05"), tagged(frame(5, 1514), "\x81\x00\x00\x00"),
		tagged(frame(6, 60), "\x88\xa8\x0f\xff"), tagged(frame(7, 1500), "\x88\xa8\x00\x05", "\x81\x00\x00\x06"), header} {
		if err := errors.Join(own.Send(frame(99, 60)), far.Send(f)); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		sent = append(sent, f)
	}
	move(t, in, len(sent), func(i int, f []byte) {
		if i < len(sent) && !bytes.Equal(f, sent[i]) || cap(f)-len(f) < 64 {
			t.Errorf("frame %d: %x, spare %d", i, f[:min(len(f), 40)], cap(f)-len(f))
		}
	})
	for i, want := range sent {
		if got, err := host.Receive(patience); err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame %d on the TAP: %x, %v", i, got, err)
		}
	}
	for i, f := range sent {
		if err := host.Send(f); err != nil {
			t.Fatal(i, err)
		}
	}
	move(t, out, len(sent), func(int, []byte) {})
	for i, want := range sent {
		for {
			got, err := far.Receive(patience)
			if err == nil && bytes.Equal(got, frame(99, 60)) {
				continue // the machine's own
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("frame %d on the veth: %x, %v", i, got, err)
			}
			break
		}
	}
}

func TestAttachedOversizeIsDiscarded(t *testing.T) { attachments(t, testAttachedOversizeIsDiscarded) }

func testAttachedOversizeIsDiscarded(t *testing.T, how Options) {
	_, _, in, _ := attached(t, how, 100, 0)
	far := testkit.Listen(t, "far")
	for i, f := range [][]byte{frame(0, 101), frame(1, 100), frame(2, 1500), tagged(frame(3, 97), "\x81\x00\x00\x05"),
		tagged(frame(4, 96), "\x81\x00\x00\x05"), tagged(frame(5, 97), "\x81\x00\x00\x05")} {
		if err := far.Send(f); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := far.Send(frame(6, 99)); err != nil { // so that those before it are done
		t.Fatal(err)
	}
	sizes := []int{100, 100, 99}
	move(t, in, len(sizes), func(i int, f []byte) {
		if i < len(sizes) && len(f) != sizes[i] {
			t.Errorf("frame %d has %d bytes, want %d", i, len(f), sizes[i])
		}
	})
	if got := in.Tally(); got.Oversize != 4 || got.In != 3 {
		t.Errorf("%+v", got)
	}
}

// Contract, The system: what a down interface loses is counted, and so is what is longer than it takes.
func TestAttachedLosesAndCounts(t *testing.T) { attachments(t, testAttachedLosesAndCounts) }

func testAttachedLosesAndCounts(t *testing.T, how Options) {
	_, _, in, out := attached(t, how, 1522, 64)
	far := testkit.Listen(t, "far")
	for _, c := range []struct {
		change  func() error
		running bool // to the kernel, which on a busy machine notices late
		frame   []byte
		want    Tally
	}{
		{func() error { return rig.Down("near") }, false, frame(1, 60), Tally{HostDown: 1, Kept: -1}},
		{func() error { return netns.Up("near") }, true, frame(2, 1518), Tally{HostDown: 1, TooLong: 1, Kept: -2}},
		{func() error { return rig.Down("far") }, false, frame(3, 60), Tally{HostDown: 1, TooLong: 1, Kept: -3, Out: 1, OutBytes: 60}},
		{func() error { return netns.Up("far") }, true, frame(4, 60), Tally{HostDown: 1, TooLong: 1, Kept: -4, Out: 2, OutBytes: 120}},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		await(t, "the kernel's notice of the change", func() bool {
			near, err := net.InterfaceByName("near")
			if err != nil {
				t.Fatal(err)
			}
			return near.Flags&net.FlagRunning != 0 == c.running
		})
		if err := out.Send([][]byte{c.frame}); err != nil {
			t.Fatal(err)
		}
		if (how.Engine == XDP || how.Engine == Direct) && c.want.Out > 0 { // by which an interface without a carrier is down
			c.want.Out, c.want.OutBytes, c.want.HostDown = c.want.Out-1, c.want.OutBytes-60, c.want.HostDown+1
		}
		if got := out.Tally(); got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
	for {
		got, err := far.Receive(patience)
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil || !bytes.Equal(got, frame(4, 60)) {
			t.Errorf("%x, %v", got, err)
		}
		break
	}
	if err := far.Send(frame(5, 60)); err != nil {
		t.Fatal(err)
	}
	if frames, err := in.Receive(); err != nil || len(frames) != 1 || !bytes.Equal(frames[0], frame(5, 60)) {
		t.Errorf("after down and up: %x, %v", frames, err)
	}
}

func TestAttachedReceiveEnds(t *testing.T) { attachments(t, testAttachedReceiveEnds) }

func testAttachedReceiveEnds(t *testing.T, how Options) {
	for name, c := range map[string]struct {
		end  func(d *Device, l *single) error
		want error
	}{
		"closed":  {func(d *Device, l *single) error { return d.Close() }, os.ErrClosed},
		"stopped": {func(d *Device, l *single) error { l.Stop(); return nil }, ErrStopped},
		"deleted": {func(d *Device, l *single) error { return netns.Delete("near") }, ErrGone},
		"moved": {func(d *Device, l *single) error {
			ns, err := netns.New("elsewhere")
			if err != nil {
				return err
			}
			defer ns.Close() // and near ends with it
			return ns.Take("near")
		}, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { vanish(t, "far") }) // a moment after its namespace
			near, _, in, _ := attached(t, how, 1514, 0)
			received := make(chan error, 1)
			go func() {
				_, err := in.Receive()
				received <- err
			}()
			time.Sleep(20 * time.Millisecond) // let it fall asleep
			if err := c.end(near, in); err != nil {
				t.Fatal(err)
			}
			if err := within(t, func() error { return <-received }); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestAttachedDeletedIsGoneForAll(t *testing.T) { attachments(t, testAttachedDeletedIsGoneForAll) }

func testAttachedDeletedIsGoneForAll(t *testing.T, how Options) {
	near, _, _, out := attached(t, how, 1514, 0)
	if err := netns.Delete("near"); err != nil {
		t.Fatal(err)
	}
	if err := out.Send([][]byte{frame(1, 60), frame(2, 60)}); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "near") {
		t.Errorf("Send: %v", err)
	}
	if got := out.Tally(); got.HostDown != 2 {
		t.Errorf("%+v", got)
	}
	_, err := near.Drops()
	for what, err := range map[string]error{"Drops": err, "Up": near.Up(), "Inject": near.Inject(frame(3, 60))} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// slow has an interface let frames out by a token bucket.
func slow(t *testing.T, name, bucket string) {
	t.Helper()
	shape := append(strings.Fields("qdisc replace dev "+name+" root tbf"), strings.Fields(bucket)...)
	if what, err := exec.Command("tc", shape...).CombinedOutput(); err != nil {
		rig.Missing(t, "needs tc and its token bucket filter: "+string(what))
	}
}

// A queue that lets 170 frames out in a second, and holds 16, refuses most of a hundred at first. Its timer
// and the sender may be on two cores, which would take frames up on the other end beside each other.
func TestAttachedRetriesRefusedFramesInOrder(t *testing.T) {
	engines(t, testAttachedRetriesRefusedFramesInOrder)
}

func testAttachedRetriesRefusedFramesInOrder(t *testing.T, how Options) {
	_, _, _, out := attached(t, how, 1514, 0)
	slow(t, "near", "rate 80kbit burst 200 limit 1000")
	const first = "1"
	receiveOn(t, "far", first)
	far := testkit.Listen(t, "far")
	const count = 100
	var frames [][]byte
	for i := range count {
		frames = append(frames, frame(i, 60))
	}
	if err := within(t, func() error { return out.Send(frames) }); err != nil {
		t.Fatal(err)
	}
	for i, want := range frames {
		if got, err := far.Receive(patience); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: got %x, %v", i, got, err)
		}
	}
	if got := out.Tally(); got.Out != count || got.HostDown+got.Refused != 0 || got.Retries == 0 {
		t.Errorf("%+v", got)
	}
}

// A queue that is full of our own frames for far longer than a refusal may last: each is taken in the end.
func TestAttachedWaitsForItsOwnFrames(t *testing.T) { engines(t, testAttachedWaitsForItsOwnFrames) }

func testAttachedWaitsForItsOwnFrames(t *testing.T, how Options) {
	_, _, _, out := attached(t, how, 1514, 0)
	slow(t, "near", "rate 16kbit burst 1000 limit 1300")
	far := testkit.Listen(t, "far")
	var frames [][]byte
	for i := range 6 {
		frames = append(frames, frame(i, 600))
	}
	began := time.Now()
	if err := within(t, func() error { return out.Send(frames) }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*longestPatience {
		t.Errorf("the frames were taken within %v: nothing was refused for long", took)
	}
	for i, want := range frames {
		if got, err := far.Receive(patience); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: got %x, %v", i, got, err)
		}
	}
	if got := out.Tally(); got.Out != 6 || got.Refused != 0 || got.Retries == 0 {
		t.Errorf("%+v", got)
	}
}

// Contract, The system: what an interface refuses for good, by a filter or a token bucket smaller than the frame, is
// given up and counted after a while, and what comes behind it goes, in order.
func TestAttachedGivesUpWhatIsRefusedForGood(t *testing.T) {
	engines(t, testAttachedGivesUpWhatIsRefusedForGood)
}

func testAttachedGivesUpWhatIsRefusedForGood(t *testing.T, how Options) {
	for name, refuse := range map[string]func(t *testing.T){
		"tbf": func(t *testing.T) { slow(t, "near", "rate 10mbit burst 600 limit 20000") },
		"nft": func(t *testing.T) {
			rules := exec.Command("nft", "-f", "-")
			rules.Stdin = strings.NewReader("table netdev t {\n chain e {\n type filter hook egress device near priority 0\n meta length > 600 drop\n }\n}\n")
			if what, err := rules.CombinedOutput(); err != nil {
				rig.Missing(t, "needs nft and its egress hook: "+string(what))
			}
			t.Cleanup(func() { exec.Command("nft", "delete", "table", "netdev", "t").Run() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, out := attached(t, how, 1514, 0)
			refuse(t)
			receiveOn(t, "far", "1")
			far := testkit.Listen(t, "far")
			const count = 60
			var frames [][]byte
			for i := range count {
				size := 60
				if i%3 == 1 {
					size = 1000
				}
				frames = append(frames, frame(i, size))
			}
			if err := within(t, func() error { return out.Send(frames) }); err != nil {
				t.Fatal(err)
			}
			for i, want := range frames {
				if i%3 == 1 {
					continue
				}
				if got, err := far.Receive(patience); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("frame %d: got %x, %v", i, got, err)
				}
			}
			if got, want := out.Tally(), uint64(count/3); got.Out != 2*want || got.Refused != want || got.HostDown != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A veth's other end leaves checksums and the cutting of datagrams to hardware that is not there.
func TestAttachedFinishesWhatSendersLeftOpen(t *testing.T) {
	attachments(t, testAttachedFinishesWhatSendersLeftOpen)
}

func testAttachedFinishesWhatSendersLeftOpen(t *testing.T, how Options) {
	_, _, in, _ := attached(t, how, 1522, 0)
	there, here := netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddrPort("192.0.2.1:9")
	if err := errors.Join(netns.Address("far", there), rig.Neighbour("far", here.Addr(), net.HardwareAddr(header[:6]))); err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(there.Addr(), 1000)), net.UDPAddrFromAddrPort(here))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, size := range []int{1, 500, 1471} {
		if _, err := conn.Write(bytes.Repeat([]byte{0xab}, size)); err != nil {
			t.Fatal(err)
		}
		frames, err := in.Receive()
		if err != nil || len(frames) != 1 || len(frames[0]) != 42+size || frames[0][23] != unix.IPPROTO_UDP {
			t.Fatalf("%d bytes: %x, %v", size, frames, err)
		}
		if sum := udpSum(frames[0]); sum != 0xffff {
			t.Errorf("%d bytes: the UDP checksum adds up to %#x", size, sum)
		}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 400) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 1200)); err != nil {
		t.Fatal(err)
	}
	frames, err := in.Receive()
	if err != nil || len(frames) != 3 {
		t.Fatalf("%d frames, %v, %+v", len(frames), err, in.Tally())
	}
	for i, f := range frames {
		if len(f) != 442 || udpSum(f) != 0xffff {
			t.Errorf("datagram %d: %d bytes, and the checksum adds up to %#x", i, len(f), udpSum(f))
		}
	}
}

// udpSum adds up an untagged IPv4 frame's UDP datagram and pseudo header; all ones is right.
func udpSum(frame []byte) uint16 {
	var sum uint32
	datagram := append(bytes.Clone(frame[34:]), 0)
	for i := 0; i+1 < len(datagram); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(datagram[i:]))
	}
	for i := 26; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	sum += unix.IPPROTO_UDP + uint32(len(frame)-34)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestAttachSaysWhatToDo(t *testing.T) {
	rig.Require(t)
	for name, word := range map[string]string{"nobody0": "is not there", "sixteen-letters-": "shorten"} {
		if _, err := Attach(name); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := within(t, func() error {
		runtime.LockOSThread() // capabilities are a thread's, which ends with its goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		_, err := Attach("lo")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Error(err)
	}
}

func TestAttachedHasOneQueue(t *testing.T) {
	near, _, _, _ := attached(t, Options{}, 1514, 0)
	if _, err := Join(near, openTAP(t, Config{Name: "two", Queues: 2}), 1, Options{Room: 1514}); err == nil || !strings.Contains(err.Error(), "no queue 1") {
		t.Error(err)
	}
}

// An interface is asked where it lives, and one that left is gone.
func TestAttachedInAnotherNamespace(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("far")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	next, err := netns.New("next")
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	ip(t, "link add near type veth peer name away")
	defer netns.Delete("near") // and so away, before the namespace in which it is then
	var d *Device
	err = errors.Join(ns.Take("away"), netns.Up("near"), ns.Do(func() error {
		d, err = Attach("away")
		return errors.Join(err, netns.Quiet("away"))
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	near := testkit.Listen(t, "near")
	if err := errors.Join(d.Up(), netns.Ready("near"), d.Inject(frame(1, 60))); err != nil {
		t.Fatal(err)
	}
	if got, err := near.Receive(patience); err != nil || !bytes.Equal(got, frame(1, 60)) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := d.Drops(); err != nil {
		t.Error(err)
	}
	if err := ns.Do(func() error { return next.Take("away") }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Drops(); !errors.Is(err, ErrGone) {
		t.Errorf("after it left: %v", err)
	}
}

func TestAttachedDrops(t *testing.T) {
	near, _, in, _ := attached(t, Options{}, 1514, 0)
	err := control(near.queues[0], func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 20000) })
	if err != nil {
		t.Fatal(err)
	}
	far := testkit.Listen(t, "far")
	const count = 500
	for i := range count {
		if err := far.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	lost := func() uint64 { // the kernel tells only once
		drops, err := near.Drops()
		if err != nil || drops.Tx >= count || drops.Rx != 0 {
			t.Fatalf("%+v, %v", drops, err)
		}
		return drops.Tx
	}
	await(t, "a loss", func() bool { return lost() > 0 })
	ended := make(chan error, 1)
	go func() {
		err := error(nil)
		for err == nil {
			_, err = in.Receive()
		}
		ended <- err
	}()
	await(t, "the rest", func() bool { return in.Tally().In+lost() == count })
	in.Stop()
	if err := within(t, func() error { return <-ended }); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}

// Inject writes beside a link, into either kind of interface.
func TestInject(t *testing.T) { attachments(t, testInject) }

func testInject(t *testing.T, how Options) {
	near, tap, _, out := attached(t, how, 1514, 0)
	far, host := testkit.Listen(t, "far"), testkit.Listen(t, "tb")
	for i, to := range []*rig.Socket{far, host} {
		d := []*Device{near, tap}[i]
		if err := d.Inject(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
		if got, err := to.Receive(patience); err != nil || !bytes.Equal(got, frame(i, 60)) {
			t.Errorf("%s: %x, %v", d.Name(), got, err)
		}
		if err := rig.Down(d.Name()); err != nil {
			t.Fatal(err)
		}
		if err := d.Inject(frame(i, 60)); err == nil || !strings.Contains(err.Error(), d.Name()) {
			t.Errorf("into %s, which is down: %v", d.Name(), err)
		}
	}
	if got := out.Tally(); got != (Tally{}) {
		t.Errorf("%+v", got)
	}
}

func TestAttachedDirectionAllocatesNothing(t *testing.T) {
	attachments(t, testAttachedDirectionAllocatesNothing)
}

func testAttachedDirectionAllocatesNothing(t *testing.T, how Options) {
	near, _, _, out := attached(t, how, 1522, 64)
	out.end()
	back := link(t, how, near, near, 1522, 64) // what it reads it writes: both halves at once
	far := testkit.Listen(t, "far")
	const runs = 6
	for i := range (runs + 1) * Batch {
		if err := far.Send(tagged(frame(i, 1000), "\x81\x00\x00\x05")); err != nil {
			t.Fatal(err)
		}
	}
	moved, goal := 0, 0
	allocs := testing.AllocsPerRun(runs, func() {
		for goal += Batch; moved < goal; { // the kernel may bring a batch in parts
			frames, err := back.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if err := back.Send(frames); err != nil {
				t.Fatal(err)
			}
			moved += len(frames)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a batch", allocs)
	}
}

// vanish waits until an interface is gone.
func vanish(t *testing.T, name string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := net.InterfaceByName(name); err != nil {
			return
		}
		if time.Since(began) > testkit.Patience {
			t.Fatalf("%s stays", name)
		}
	}
}
