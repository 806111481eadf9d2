package tap

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// amid is two attached veths, "qa" and "qb", with several queues each, and what moves frames between them.
// What enters by "qa-far" leaves by "qb-far", which hands on its frames on one core, and the other way round.
type amid struct {
	how     Options
	a, b    *Device
	ended   chan error
	running [][]*Worker // by queue
}

func openAmid(t *testing.T, how Options, queues int) *amid {
	t.Helper()
	if rig.Require(t); how.Engine == XDP {
		requireXDP(t)
	}
	if err := CanSteer(); err != nil {
		rig.Missing(t, err.Error())
	}
	remove, err := rig.QuietVeths(1500, "qa", "qb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove() })
	for _, name := range []string{"qa", "qb"} {
		receiveOn(t, name, "1")
		receiveOn(t, rig.FarEnd(name), "1")
	}
	how.Room, how.Tail = 1522, 64
	m := &amid{how: how, ended: make(chan error, 100), running: make([][]*Worker, queues)}
	var err2 error
	m.a, err = AttachQueues("qa", queues)
	if m.b, err2 = AttachQueues("qb", queues); errors.Join(err, err2) != nil {
		t.Fatal(err, err2)
	}
	t.Cleanup(func() { m.a.Close(); m.b.Close() })
	for queue := range queues {
		m.start(t, queue)
	}
	t.Cleanup(func() {
		for queue := range queues {
			m.stop(t, queue)
		}
	})
	return m
}

// start joins a queue.
func (m *amid) start(t *testing.T, queue int) {
	t.Helper()
	workers, err := Join(m.a, m.b, queue, m.how)
	if err != nil {
		t.Fatal(err)
	}
	m.running[queue] = workers
	for _, w := range workers {
		go func() {
			for {
				d, frames, err := w.Next()
				if err == nil {
					err = d.Send(frames)
				}
				if err != nil {
					w.Stop()
					for again := error(nil); again == nil; { // which releases everything
						_, _, again = w.Next()
					}
					m.ended <- err
					return
				}
			}
		}()
	}
}

// stop ends a queue's workers.
func (m *amid) stop(t *testing.T, queue int) {
	t.Helper()
	for _, w := range m.running[queue] {
		w.Stop()
	}
	for range m.running[queue] {
		if err := m.end(t); !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	}
	m.running[queue] = nil
}

// end waits for a worker's end.
func (m *amid) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-m.ended:
		return err
	case <-time.After(patience):
		t.Fatal("no worker has ended")
		return nil
	}
}

// gather collects flows' frames from an interface until they are as many, or until none comes any more.
func gather(t *testing.T, far *rig.Socket, flows map[string]stream, most int) *arrived {
	t.Helper()
	known := map[string]bool{}
	for _, f := range flows {
		known[string(f.frame)] = true
	}
	got := &arrived{frames: make([][][]byte, 1)}
	for limit := patience; got.count() < most; {
		f, err := far.Receive(limit)
		switch {
		case errors.Is(err, unix.ENETDOWN):
		case err != nil:
			return got
		case known[string(f[:max(len(f)-4, 0)])]:
			got.frames[0] = append(got.frames[0], append([]byte(nil), f...))
		}
	}
	return got
}

// anyQueue are flows of which it does not matter by which queue they came.
func anyQueue(queues int) map[string]stream {
	flows := flowsOf(queues)
	for name, f := range flows {
		flows[name] = stream{f.frame, -1}
	}
	return flows
}

// Contract, The system: with several queues between attached interfaces each frame leaves once, an SA's in
// order, also while a queue's workers end and others follow, and more frames than the memory has chunks.
func TestAttachedQueuesConserve(t *testing.T) { attachments(t, testAttachedQueuesConserve) }

func testAttachedQueuesConserve(t *testing.T, how Options) {
	const queues, rounds, each = 3, 12, 3
	m := openAmid(t, how, queues)
	in, out := testkit.Listen(t, rig.FarEnd("qa")), testkit.Listen(t, rig.FarEnd("qb"))
	for way, ends := range [][]*rig.Socket{{in, out}, {out, in}} {
		flows, all := anyQueue(queues), &arrived{frames: make([][][]byte, 1)}
		for round := range rounds {
			for i := range each {
				sendFlows(t, ends[0], flows, round*each+i)
			}
			if how.Engine != Plain { // which does not say whether it has read what it returns
				m.stop(t, round%queues)
				m.start(t, round%queues)
			}
			got := gather(t, ends[1], flows, each*len(flows))
			all.frames[0] = append(all.frames[0], got.frames[0]...)
		}
		if all.check(t, flows, true, rounds*each); t.Failed() {
			t.Fatal("way", way)
		}
	}
	for _, d := range []*Device{m.a, m.b} {
		if drops, err := d.Drops(); err != nil || drops != (Drops{}) {
			t.Errorf("%s: %+v, %v", d.Name(), drops, err)
		}
	}
}

// While the interface that they leave by goes down and up frames are lost, but of an SA none comes twice, and
// none before one that was sent earlier.
func TestAttachedQueuesLeaveInOrder(t *testing.T) { attachments(t, testAttachedQueuesLeaveInOrder) }

func testAttachedQueuesLeaveInOrder(t *testing.T, how Options) {
	const queues, flaps = 3, 15
	m := openAmid(t, how, queues)
	flows, in, out := anyQueue(queues), testkit.Listen(t, rig.FarEnd("qa")), testkit.Listen(t, rig.FarEnd("qb"))
	flapped := make(chan error, 1)
	go func() {
		var err error
		for range flaps {
			err = errors.Join(err, rig.Down("qb"), netns.Up("qb"))
		}
		flapped <- err
	}()
	count := 0
	for ; len(flapped) == 0; count++ {
		sendFlows(t, in, flows, count)
	}
	if err := <-flapped; err != nil {
		t.Fatal(err)
	}
	got := gather(t, out, flows, count*len(flows)/100+1)
	await(t, "frames of all flows after the last flap", func() bool {
		sendFlows(t, in, flows, count)
		count++
		again := gather(t, out, flows, len(flows))
		got.frames[0] = append(got.frames[0], again.frames[0]...)
		last := map[string]bool{}
		for _, f := range again.frames[0] {
			last[string(f[:len(f)-4])] = true
		}
		return len(last) == len(flows)
	})
	got.check(t, flows, false, count)
	if err := netns.Delete("qb"); err != nil {
		t.Fatal(err)
	}
	sendFlows(t, in, flows, count) // by which the plain engine learns it
	for queue := range queues {
		for range m.running[queue] {
			if err := m.end(t); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "qb") {
				t.Error(err)
			}
		}
		m.running[queue] = nil
	}
}
