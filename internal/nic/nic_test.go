package nic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/tap"
	"tapsec/test/testkit"
)

const frames = 10000

// patience is how long anything may take on a machine that has much else to do.
const patience = testkit.Patience

// engine is what moves the frames of the test that runs; each runs on all.
var engine tap.Engine

func engines(t *testing.T, test func(t *testing.T)) {
	for _, engine = range []tap.Engine{tap.Ring, tap.Plain} {
		t.Run(engine.String(), test)
	}
}

// running is a NIC between two fresh interfaces, wire and host, that are up.
type running struct {
	*NIC
	wire, host *tap.Device
	cancel     context.CancelFunc
	ended      chan error
}

func run(t testing.TB, queues int, chain Chain) *running {
	t.Helper()
	rig.Require(t)
	return join(t, open(t, "wire", queues), open(t, "host", queues), chain)
}

func join(t testing.TB, wire, host *tap.Device, chain Chain) *running {
	t.Helper()
	return joinBoth(t, wire, host, chain, nil)
}

func joinBoth(t testing.TB, wire, host *tap.Device, inward, outward Chain) *running {
	t.Helper()
	r := &running{wire: wire, host: host, ended: make(chan error, 1)}
	n, err := New(Config{Wire: r.wire, Host: r.host, Room: 1518, Tail: 64, Chain: inward, Outward: outward, Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	r.NIC = n
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- n.Run(ctx) }()
	t.Cleanup(cancel)
	return r
}

func open(t testing.TB, name string, queues int) *tap.Device {
	t.Helper()
	d, err := tap.Open(tap.Config{Name: name, Queues: queues})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := errors.Join(netns.Up(name), netns.Ready(name)); err != nil {
		t.Fatal(err)
	}
	return d
}

// wait returns what Run returned.
func (r *running) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		t.Fatal("Run goes on")
		return nil
	}
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v, want nil after cancel", err)
	}
}

// moved waits until of so many frames from the wire each is dealt with: lost in its queue, or no longer in
// the NIC.
func (r *running) moved(t *testing.T, count uint64) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		drops, err := r.wire.Drops()
		if err != nil {
			t.Fatal(err)
		}
		c := r.Summary().ToHost
		if c.In+drops.Tx == count && c.Out+c.HostDown == c.In {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %d frames the wire lost %d, and the NIC has %+v", count, drops.Tx, c)
		}
	}
}

// conserved checks the contract's equation against the NIC's own counters.
func conserved(t *testing.T, side string, c tap.Tally) {
	t.Helper()
	if int64(c.In) != int64(c.Out+c.HostDown+c.TooLong+c.Refused)+c.Kept {
		t.Errorf("%s: in is not out + host down + too long + refused + kept: %+v", side, c)
	}
}

// Contract, The system: in = out + what is counted otherwise, order kept, and towards the wire bytes untouched.
func TestConservationAndOrder(t *testing.T) { engines(t, testConservationAndOrder) }

func testConservationAndOrder(t *testing.T) {
	for side, o := range map[string]order{"to host": {From: "wire", To: "host"}, "to wire": {From: "host", To: "wire"}} {
		t.Run(side, func(t *testing.T) {
			r := run(t, 1, nil)
			o.Count, o.Window, o.Flows = frames, 300, 1
			a := start(t, o)(0)
			r.stop(t)
			if want := (account{Sent: frames, Received: frames}); a != want {
				t.Errorf("peer saw %+v, want %+v", a, want)
			}
			there, back := r.Summary().ToHost, r.Summary().ToWire
			if side == "to wire" {
				there, back = back, there
			}
			if there.In != frames || there.Out != frames || there.InBytes != there.OutBytes || back.In != 0 {
				t.Errorf("there %+v, back %+v", there, back)
			}
		})
	}
}

// Under a burst that it does not follow, the NIC loses nothing; the wire's own queue does, and says so.
func TestBurstIsTheQueuesLoss(t *testing.T) { engines(t, testBurstIsTheQueuesLoss) }

func testBurstIsTheQueuesLoss(t *testing.T) {
	opened := make(gate)
	r := run(t, 1, func(int) []Stage { return []Stage{opened} })
	finish := start(t, order{From: "wire", To: "host", Count: frames, Flows: 1})
	drops, err := r.wire.Drops()
	for ; err == nil && drops.Tx == 0; drops, err = r.wire.Drops() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	close(opened)
	r.moved(t, frames)
	a := finish(frames - int(r.Summary().ToHost.Out))
	r.stop(t)
	c := r.Summary().ToHost
	conserved(t, "to host", c)
	if drops, err = r.wire.Drops(); err != nil {
		t.Fatal(err)
	}
	if lost := uint64(frames) - c.In; lost == 0 || lost != drops.Tx {
		t.Errorf("%d frames did not come in, the kernel counts %d", lost, drops.Tx)
	}
	if a.Received != int(c.Out) || a.Disordered+a.Damaged != 0 {
		t.Errorf("peer saw %+v, NIC wrote %d", a, c.Out)
	}
}

// gate holds frames until it is closed.
type gate chan struct{}

func (g gate) Batch(frames [][]byte) [][]byte {
	<-g
	return frames
}

// Contract, The system: only a host interface that is down loses frames, and they are counted. The judge of
// what was written is the kernel's counter: while the interface changes, packet sockets are let go
// and taken up a moment off the time in which it takes frames.
func TestHostDown(t *testing.T) { engines(t, testHostDown) }

func testHostDown(t *testing.T) {
	r := run(t, 1, nil)
	finish := start(t, order{From: "wire", To: "host", Flows: 1})
	for r.Summary().ToHost.Out < 500 {
		time.Sleep(time.Millisecond)
	}
	if err := rig.Down("host"); err != nil {
		t.Fatal(err)
	}
	for r.Summary().ToHost.HostDown < 500 {
		time.Sleep(time.Millisecond)
	}
	if err := netns.Up("host"); err != nil {
		t.Fatal(err)
	}
	for written := r.Summary().ToHost.Out; r.Summary().ToHost.Out < written+500; {
		time.Sleep(time.Millisecond)
	}
	a := finish(unknown)
	r.moved(t, uint64(a.Sent+a.Refused))
	r.stop(t)
	c := r.Summary().ToHost
	conserved(t, "to host", c)
	drops, err := r.wire.Drops()
	if err != nil {
		t.Fatal(err)
	}
	host, err := netlink.LinkByName("host")
	if err != nil {
		t.Fatal(err)
	}
	if written := host.Attrs().Statistics.RxPackets; c.HostDown == 0 || c.In+drops.Tx != uint64(a.Sent+a.Refused) || written != c.Out {
		t.Errorf("NIC %+v, kernel dropped %d on wire and took %d on host", c, drops.Tx, written)
	}
	if a.Received == 0 || a.Received > int(c.Out) || a.Disordered+a.Damaged != 0 {
		t.Errorf("NIC %+v, peer %+v", c, a)
	}
}

func TestInterfaceDeletedUnderLoad(t *testing.T) { engines(t, testInterfaceDeletedUnderLoad) }

func testInterfaceDeletedUnderLoad(t *testing.T) {
	for _, name := range []string{"wire", "host"} {
		for side, o := range map[string]order{"to host": {From: "wire", To: "host"}, "to wire": {From: "host", To: "wire"}} {
			t.Run(name+" "+side, func(t *testing.T) {
				r := run(t, 1, nil)
				o.Flows = 1
				finish := start(t, o)
				for r.Summary().ToHost.Out+r.Summary().ToWire.Out < 500 {
					time.Sleep(time.Millisecond)
				}
				if err := netns.Delete(name); err != nil {
					t.Fatal(err)
				}
				err := r.wait(t)
				if !errors.Is(err, tap.ErrGone) || !strings.Contains(err.Error(), name) {
					t.Errorf("Run: %v", err)
				}
				conserved(t, "to host", r.Summary().ToHost)
				conserved(t, "to wire", r.Summary().ToWire)
				finish(unknown)
			})
		}
	}
}

// An interface that goes while nothing happens is noticed too.
func TestInterfaceDeletedWhileIdle(t *testing.T) { engines(t, testInterfaceDeletedWhileIdle) }

func testInterfaceDeletedWhileIdle(t *testing.T) {
	r := run(t, 2, nil)
	time.Sleep(20 * time.Millisecond)
	if err := netns.Delete("host"); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(t); !errors.Is(err, tap.ErrGone) || !strings.Contains(err.Error(), "host") {
		t.Errorf("Run: %v", err)
	}
}

func TestTwoQueues(t *testing.T) { engines(t, testTwoQueues) }

func testTwoQueues(t *testing.T) {
	r := run(t, 2, nil)
	a := start(t, order{From: "wire", To: "host", Count: frames, Window: 300, Flows: 32})(0)
	r.stop(t)
	if want := (account{Sent: frames, Received: frames}); a != want {
		t.Errorf("peer saw %+v, want %+v", a, want)
	}
	for i, w := range r.workers {
		for _, d := range w.Directions() {
			if d.From() == r.wire && d.Tally().In == 0 {
				t.Errorf("worker %d saw nothing", i)
			}
		}
	}
}

func TestQueuesMustMatch(t *testing.T) {
	rig.Require(t)
	_, err := New(Config{Wire: open(t, "wire", 1), Host: open(t, "host", 2), Room: 100})
	if err == nil || !strings.Contains(err.Error(), "same number") {
		t.Error(err)
	}
}

// The host's kernel side lives in a namespace of its own, as `run` can place it.
func TestHostInNamedNamespace(t *testing.T) { engines(t, testHostInNamedNamespace) }

func testHostInNamedNamespace(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("hostside")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	var host *tap.Device
	err = ns.Do(func() (err error) {
		if host, err = tap.Open(tap.Config{Name: "host"}); err == nil {
			err = errors.Join(netns.Up("host"), netns.Ready("host"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	r := join(t, open(t, "wire", 1), host, nil)
	const count = 2000
	a := start(t, order{From: "wire", To: "host", Namespace: "hostside", Count: count, Window: 300, Flows: 1})(0)
	r.stop(t)
	if want := (account{Sent: count, Received: count}); a != want {
		t.Errorf("peer saw %+v, want %+v", a, want)
	}
}

// sieve keeps every frame whose number three divides, and sends each whose number seven divides a
// second time, from memory of its own and with the stamp set.
type sieve struct {
	out  [][]byte
	made [tap.Batch][]byte
}

func (s *sieve) Batch(frames [][]byte) [][]byte {
	s.out = s.out[:0]
	for i, f := range frames {
		number := binary.BigEndian.Uint32(f[46:])
		if number%3 != 0 {
			s.out = append(s.out, f)
		}
		if number%7 == 0 {
			s.made[i] = append(s.made[i][:0], f...)
			s.made[i][stampAt], s.made[i][stampAt+1] = 1, 1
			s.out = append(s.out, s.made[i])
		}
	}
	return s.out
}

// Stages of either direction may take frames and make others; the counts say what became of all.
func TestStagesMayKeepAndMakeFrames(t *testing.T) { engines(t, testStagesMayKeepAndMakeFrames) }

func testStagesMayKeepAndMakeFrames(t *testing.T) {
	for side, o := range map[string]order{"to host": {From: "wire", To: "host"}, "to wire": {From: "host", To: "wire"}} {
		t.Run(side, func(t *testing.T) {
			chain := func(int) []Stage { return []Stage{new(sieve)} }
			there := func(s Summary) tap.Tally { return s.ToHost }
			inward, outward := Chain(chain), Chain(nil)
			if side == "to wire" {
				inward, outward = nil, chain
				there = func(s Summary) tap.Tally { return s.ToWire }
			}
			rig.Require(t)
			r := joinBoth(t, open(t, "wire", 1), open(t, "host", 1), inward, outward)
			const count = 2100
			in, out := testkit.Listen(t, o.From), testkit.Listen(t, o.To)
			for number := range count {
				if err := in.Send(numbered(0, number)); err != nil {
					t.Fatal(err)
				}
				for copies := wanted(number); copies > 0; copies-- {
					got, err := out.Receive(patience)
					if _, n, ok := read(got, 1); err != nil || !ok || n != number {
						t.Fatalf("frame %d: got %d, %v, %v", number, n, ok, err)
					}
				}
			}
			r.stop(t)
			c := there(r.Summary())
			conserved(t, side, c)
			if c.In != count || c.Kept != count/3-count/7 || c.Out != count-count/3+count/7 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// wanted is how many frames the sieve makes of one.
func wanted(number int) (copies int) {
	if number%3 != 0 {
		copies++
	}
	if number%7 == 0 {
		copies++
	}
	return copies
}

// Either side may be an interface that is there already, such as a veth.
func TestAttachedInterfaces(t *testing.T) { engines(t, testAttachedInterfaces) }

func testAttachedInterfaces(t *testing.T) {
	for name, c := range map[string]struct{ from, to string }{"wire": {"wire-far", "host"}, "host": {"wire", "host-far"}} {
		for _, o := range []order{{From: c.from, To: c.to}, {From: c.to, To: c.from}} {
			t.Run(name+" from "+o.From, func(t *testing.T) {
				rig.Require(t)
				sides := map[string]*tap.Device{name: attach(t, name)}
				for _, other := range []string{"wire", "host"} {
					if sides[other] == nil {
						sides[other] = open(t, other, 1)
					}
				}
				r := join(t, sides["wire"], sides["host"], nil)
				o.Count, o.Window, o.Flows = 5000, 300, 1
				a := start(t, o)(0)
				r.stop(t)
				if want := (account{Sent: 5000, Received: 5000}); a != want {
					t.Errorf("peer saw %+v, want %+v", a, want)
				}
				conserved(t, "to host", r.Summary().ToHost)
				conserved(t, "to wire", r.Summary().ToWire)
			})
		}
	}
}

// Between two of them nothing is lost either, both ways at once.
func TestAttachedOnBothSides(t *testing.T) { engines(t, testAttachedOnBothSides) }

func testAttachedOnBothSides(t *testing.T) {
	rig.Require(t)
	r := join(t, attach(t, "wire"), attach(t, "host"), nil)
	there := start(t, order{From: "wire-far", To: "host-far", Count: frames, Window: 150, Flows: 8})
	back := start(t, order{From: "host-far", To: "wire-far", Count: frames, Window: 150, Flows: 8})
	want := account{Sent: frames, Received: frames}
	if a, b := there(0), back(0); a != want || b != want {
		t.Errorf("peers saw %+v there and %+v back, want %+v", a, b, want)
	}
	if is, why := r.Engine(); is != engine {
		t.Errorf("asked for %v, found %v: %s", engine, is, why)
	}
	r.stop(t)
	conserved(t, "to host", r.Summary().ToHost)
	conserved(t, "to wire", r.Summary().ToWire)
}

// attach makes a veth, whose other end's name has "-far" behind it, and attaches it.
func attach(t *testing.T, name string) *tap.Device {
	t.Helper()
	far := name + "-far"
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: far})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(name) })
	if err := errors.Join(netns.Up(name), netns.Up(far), netns.Ready(name, far)); err != nil {
		t.Fatal(err)
	}
	d, err := tap.Attach(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// One worker of the ring drives both directions.
func TestBothDirectionsAtOnce(t *testing.T) { engines(t, testBothDirectionsAtOnce) }

func testBothDirectionsAtOnce(t *testing.T) {
	r := run(t, 2, nil)
	there := start(t, order{From: "wire", To: "host", Count: frames, Window: 150, Flows: 8})
	back := start(t, order{From: "host", To: "wire", Count: frames, Window: 150, Flows: 8})
	want := account{Sent: frames, Received: frames}
	if a, b := there(0), back(0); a != want || b != want {
		t.Errorf("peers saw %+v there and %+v back, want %+v", a, b, want)
	}
	r.stop(t)
	conserved(t, "to host", r.Summary().ToHost)
	conserved(t, "to wire", r.Summary().ToWire)
}

// A NIC that is stopped has written what it has received, and the next one finds the rest.
func TestStoppedUnderLoad(t *testing.T) { engines(t, testStoppedUnderLoad) }

func testStoppedUnderLoad(t *testing.T) {
	r := run(t, 1, nil)
	finish := start(t, order{From: "wire", To: "host", Count: frames, Window: 300, Flows: 1})
	var moved uint64
	for next := uint64(1000); next < frames; next += 1000 {
		for moved+r.Summary().ToHost.Out < next {
			time.Sleep(100 * time.Microsecond)
		}
		r.stop(t)
		c := r.Summary().ToHost
		if conserved(t, "to host", c); c.HostDown != 0 {
			t.Errorf("%+v", c)
		}
		moved += c.Out
		r = join(t, r.wire, r.host, nil)
	}
	if a, want := finish(0), (account{Sent: frames, Received: frames}); a != want {
		t.Errorf("peer saw %+v, want %+v", a, want)
	}
	r.stop(t)
}

// suffix lengthens every frame into its spare capacity.
type suffix struct{ what []byte }

func (s suffix) Batch(frames [][]byte) [][]byte {
	for i, f := range frames {
		frames[i] = append(f, s.what...)
	}
	return frames
}

func TestStagesRunInOrderAndMayLengthen(t *testing.T) { engines(t, testStagesRunInOrderAndMayLengthen) }

func testStagesRunInOrderAndMayLengthen(t *testing.T) {
	r := run(t, 1, func(queue int) []Stage {
		return []Stage{suffix{[]byte{byte(queue)}}, suffix{bytes.Repeat([]byte{1}, 31)}, suffix{bytes.Repeat([]byte{2}, 32)}}
	})
	in, out := testkit.Listen(t, "wire"), testkit.Listen(t, "host")
	for number := range 200 {
		sent := numbered(0, number)
		if err := in.Send(sent); err != nil {
			t.Fatal(err)
		}
		want := append(append(append(sent, 0), bytes.Repeat([]byte{1}, 31)...), bytes.Repeat([]byte{2}, 32)...)
		if got, err := out.Receive(patience); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: got %x, %v", number, got, err)
		}
	}
	r.stop(t)
}

// What the watchdog goes by: a worker counts rounds also without frames, and no longer when it hangs.
func TestRoundsTellAHangingWorker(t *testing.T) { engines(t, testRoundsTellAHangingWorker) }

func testRoundsTellAHangingWorker(t *testing.T) {
	hang := &hanging{came: make(chan struct{}, 1), goOn: make(chan struct{})}
	r := run(t, 1, func(int) []Stage { return []Stage{hang} })
	since := func(before []uint64) (went int) {
		for i, n := range r.Rounds() {
			if n > before[i] {
				went++
			}
		}
		return went
	}
	workers := len(r.Rounds())
	all := func() {
		for before := r.Rounds(); since(before) < workers; {
			time.Sleep(time.Millisecond)
		}
	}
	all()
	if err := testkit.Listen(t, "wire").Send(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	<-hang.came
	before := r.Rounds()
	time.Sleep(1500 * time.Millisecond) // in which each would come round
	for since(before) < workers-1 {
		time.Sleep(time.Millisecond)
	}
	if went := since(before); went != workers-1 {
		t.Errorf("%d of %d workers go on, one hangs", went, workers)
	}
	close(hang.goOn)
	all()
	r.stop(t)
}

type hanging struct{ came, goOn chan struct{} }

func (h *hanging) Batch(frames [][]byte) [][]byte {
	select {
	case h.came <- struct{}{}:
	default:
	}
	<-h.goOn
	return frames
}

// Nothing has moved when Opened is called, and everything is open.
func TestOpenedBeforeFramesMove(t *testing.T) { engines(t, testOpenedBeforeFramesMove) }

func testOpenedBeforeFramesMove(t *testing.T) {
	rig.Require(t)
	wire, host := open(t, "wire", 1), open(t, "host", 1)
	from, to := testkit.Listen(t, "wire"), testkit.Listen(t, "host")
	if err := from.Send(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	moved := uint64(1)
	var n *NIC
	n, err := New(Config{Wire: wire, Host: host, Room: 2000, Engine: engine, Opened: func() { moved = n.Summary().ToHost.In }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	if _, err := to.Receive(patience); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil || moved != 0 {
		t.Errorf("%d frames had come before, %v", moved, err)
	}
}
