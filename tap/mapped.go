package tap

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

// mapped is the engine of a worker that takes one direction's frames out of a packet ring, on a thread of its
// own. Frames are processed where the kernel put them, and written from there: to an attached interface by
// its exit, to a TAP by io_uring if possible. While the ring has frames, reading takes no call and writing
// one for each batch.
type mapped struct {
	outlet
	life
	ring    inlet      // nil once the kernel has broken it; from then on each frame is received
	xdp     *xdpSocket // the same, where it is AF_XDP
	beside  bool       // with AF_XDP: the packet socket may have a frame, an earlier one or one of another queue
	exit    exit       // by which frames leave, or nil
	drained bool       // the ring was empty when its drops were last asked for
	dropped uint64     // how many drops those were
	quiet   int        // how often it has slept in vain since a frame came
	message *message   // receives frames too long for a slot, and cuts merged ones
	batch   [][]byte
	own     [][]byte // slots for such frames
	polled  []unix.PollFd
	in, out int // descriptors of its own
}

// newMapped makes all that the engine needs.
func newMapped(d *Direction, o Options) (*mapped, error) {
	m := &mapped{life: life{name: d.from.name, busy: o.BusyPoll, alarm: -1}, in: -1, out: -1, batch: make([][]byte, 0, Batch),
		message: newMessage(true), own: d.slots(make([]byte, Batch*d.slotSize()))}
	m.direction, m.life.end = d, m.end
	m.drain = m.write
	m.reach = func(do func(fd uintptr)) error { do(uintptr(m.out)); return nil }
	err := m.equip(o)
	if err == nil {
		err = m.enter(o.asked == XDP)
	}
	if err != nil {
		return nil, m.end(err)
	}
	d.from.holds(m)
	d.to.holds(m)
	return m, nil
}

// equip makes descriptors, and what frames are written with.
func (m *mapped) equip(o Options) (err error) {
	d := m.direction
	if m.in, err = duplicate(d.source); err != nil {
		return d.from.failed("read from", err)
	}
	if m.out, err = duplicate(d.target); err != nil {
		return d.to.failed("write to", err)
	}
	if err := m.setAlarm(); err != nil {
		return err
	}
	m.polled = []unix.PollFd{{Fd: int32(m.in), Events: unix.POLLIN}, {Fd: int32(m.alarm), Events: unix.POLLIN}}
	switch {
	case d.to.attached():
		e, err := d.exit(o)
		if err != nil {
			return err
		}
		m.sink, m.exit = e, e
	case o.Engine == Ring:
		b, err := newBurst()
		if err != nil {
			return err
		}
		m.sink, m.uring = b, b.uring
	default:
		m.sink = oneByOne{}
	}
	return nil
}

// enter makes what frames arrive in, or takes it over.
func (m *mapped) enter(xdp bool) error {
	d := m.direction
	if xdp {
		x, err := d.from.xdpOf(d.queue, d.room)
		if err != nil {
			return err
		}
		m.ring, m.xdp, m.beside = x, x, true
		m.polled = append(m.polled, unix.PollFd{Fd: int32(x.in), Events: unix.POLLIN})
		return nil
	}
	r, err := d.from.ringOf(d.queue, d.room, d.tail)
	if err != nil {
		return err
	}
	m.ring = r
	return nil
}

// kind is what the engine is called, and why it is this one.
func (m *mapped) kind() (Engine, string) {
	if m.xdp != nil {
		return XDP, m.xdp.why()
	}
	return Ring, m.direction.from.name + " is attached, and the kernel puts its frames into memory of the program's"
}

// end releases everything. Memory that the kernel may still read stays for as long as the process lives.
func (m *mapped) end(why error) error {
	m.last = why
	if m.xdp != nil {
		m.account()
	}
	reading := false
	if b, ok := m.sink.(*burst); ok {
		reading = b.open > 0
		b.uring.close()
	}
	switch {
	case m.ring == nil:
	case reading:
		abandon(m.ring, m.own, m.batch, m.direction)
	default:
		m.ring.giveBack()
		m.ring.release()
	}
	if m.exit != nil {
		m.exit.release()
	}
	m.dropAlarm()
	for _, fd := range []int{m.in, m.out} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	m.in, m.out = -1, -1
	m.direction.public.store(&m.direction.tally)
	return why
}

// stop may be called from any goroutine.
func (m *mapped) stop() {
	m.stopped.Store(true)
	m.wake()
}

func (m *mapped) send(d *Direction, parcels []parcel) error {
	if m.last != nil {
		d.tally.HostDown += framesOf(parcels)
		return m.last
	}
	if err := m.open(); err != nil {
		return err
	}
	return m.outlet.send(d, parcels)
}

// next returns all frames that have come, up to Batch:
//
//  1. Give back the slots of the last batch, which has been written.
//  2. Take what is there.
//  3. If there is nothing, sleep until something comes or it is time to check the interface.
func (m *mapped) next() (*Direction, [][]byte, error) {
	if err := m.open(); err != nil {
		return nil, nil, err
	}
	d := m.direction
	for {
		m.count.Add(1)
		if m.ring != nil {
			m.ring.giveBack()
		}
		m.batch = m.batch[:0]
		if m.stopped.Load() && !m.message.pending() {
			return nil, nil, m.finish(ErrStopped)
		}
		err := m.take()
		m.look()
		d.public.store(&d.tally)
		if len(m.batch) > 0 {
			m.quiet = 0
			if m.busy > 0 {
				m.awake = time.Now()
			}
			d.taken += len(m.batch)
			return d, m.batch, nil
		}
		if err == nil && !m.spinning() {
			err = m.sleep()
		}
		if err != nil {
			return nil, nil, m.finish(err)
		}
	}
}

// look counts what AF_XDP has lost, before each sleep and now and then without one. It also has the packet
// socket checked, on which frames of other queues come.
func (m *mapped) look() {
	const between = 64 // batches
	if m.xdp == nil || len(m.batch) > 0 && m.count.Load()%between != 0 {
		return
	}
	m.beside = m.beside || len(m.batch) > 0
	m.account()
}

// account counts the frames that AF_XDP had no chunk for.
func (m *mapped) account() {
	if lost, err := m.xdp.account(); err == nil {
		m.direction.from.lost[0].Add(lost)
	}
	m.direction.tally.Oversize += m.xdp.tooLong.Swap(0)
}

// take makes a batch of the frames that have come. An error after some frames comes again.
func (m *mapped) take() error {
	d := m.direction
	for len(m.batch) < Batch {
		frame, err := m.frame()
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == errUncut:
			d.tally.Uncut++
		case err == errNoBuffer:
			d.from.lost[d.queue].Add(1)
		case err == unix.EMSGSIZE, err == nil && len(frame) > d.room:
			d.tally.Oversize++
		case err != nil:
			return d.from.failed("read from", err)
		default:
			m.batch = append(m.batch, frame)
			d.received(frame)
		}
	}
	return nil
}

// errNoBuffer is for a frame longer than its slot for which the socket's queue had no room.
var errNoBuffer = errors.New("the socket's queue was full")

// frame returns the next frame as it would be on a wire, with room after it. What is too long for that
// comes as EMSGSIZE.
//
//  1. Hand out what is left of a merged frame. No more frames are EAGAIN.
//     Beside AF_XDP the packet socket goes first: what came before the program did is older.
//  2. A frame that is too long for its slot is to be received.
//  3. A merged one is to be where it may stay until all of it is handed out.
//  4. Any other stays where it is.
func (m *mapped) frame() ([]byte, error) {
	own := m.own[len(m.batch)]
	switch {
	case m.message.pending():
		return m.message.piece(own)
	case m.stopped.Load():
		return nil, unix.EAGAIN
	case m.ring == nil:
		return m.receive(own)
	case m.beside:
		if frame, err := m.receive(own); err != unix.EAGAIN {
			return frame, err
		}
		m.beside = false
	}
	if !m.ring.ready() {
		return nil, unix.EAGAIN
	}
	a, err := m.ring.take()
	m.drained = false
	if err != nil {
		return nil, err
	}
	if !a.whole() {
		if !a.copied {
			return nil, errNoBuffer
		}
		frame, err := m.receive(own)
		if err == unix.EAGAIN {
			err = errNoBuffer
		}
		return frame, err
	}
	if a.bare {
		segment.Complete(a.frame())
	} else {
		h := segment.Parse(a.vnet())
		if h.Merged() {
			was := a.begin
			a.tag()
			return m.message.cut(h.Shift(was-a.begin), a.frame(), own)
		}
		h.Finish(a.frame())
		a.tag()
	}
	frame := a.frame()
	if d := m.direction; len(frame) <= d.room && cap(frame)-len(frame) < d.tail { // of a ring made for shorter frames
		frame = append(own[head:head], frame...)
	}
	return frame, nil
}

// receive takes a frame out of the socket's queue.
func (m *mapped) receive(own []byte) ([]byte, error) {
	for {
		frame, err := m.message.receive(m.in, own)
		switch {
		case err == unix.EINTR, err == unix.ENETDOWN: // ENETDOWN comes once after the interface went down
		case err == unix.EAGAIN || !refused(err):
			return frame, err
		case m.stopped.Load():
			return nil, unix.EAGAIN
		default: // memory is short; whoever asks for a frame that is too long for its slot must get that one
			m.count.Add(1)
			time.Sleep(longestPause)
		}
	}
}

const (
	suspicion  = 50 * time.Millisecond // time after which a sleeper checks whether the ring is broken
	suspicions = 20                    // how often it does; then only with the heartbeat
)

// sleep waits until a frame comes, or Stop. From time to time, and when the socket reports a change, it
// checks that the interface is still there and the ring works.
func (m *mapped) sleep() error {
	limit := suspicion
	if m.quiet >= suspicions || m.ring == nil || m.xdp != nil {
		limit = heartbeat
	}
	n, err := unix.Poll(m.polled, int(limit/time.Millisecond))
	switch {
	case errors.Is(err, unix.EINTR):
	case refused(err): // memory is short
		time.Sleep(longestPause)
	case err != nil:
		return fmt.Errorf("wait for %s: %w", m.direction.from.name, err)
	case n == 0:
		m.quiet++
		if err := m.suspect(); err != nil {
			return err
		}
		return m.direction.remain()
	case m.polled[0].Revents&unix.POLLERR != 0:
		unix.GetsockoptInt(m.in, unix.SOL_SOCKET, unix.SO_ERROR) // clears ENETDOWN; frames come again when the interface is up
		return m.direction.remain()
	case m.xdp != nil:
		m.beside = m.polled[0].Revents&unix.POLLIN != 0
	}
	return nil
}

// suspect gives up the ring if the kernel drops frames although the ring is empty. If Linux cannot say in a
// virtio header how a frame was merged (SCTP, UFO), it fills neither that frame's slot nor any later one: it
// forgets to clear the slot's bit in rx_owner_map (tpacket_rcv). Frames that come until then are lost. The
// kernel counts them, except in the few milliseconds that the socket takes to switch.
func (m *mapped) suspect() error {
	d := m.direction
	if m.ring == nil || m.xdp != nil || m.ring.ready() {
		return nil
	}
	dropped, err := d.from.ringDrops(d.queue)
	more := dropped > m.dropped
	m.dropped = dropped
	if err != nil || !more || !m.drained {
		m.drained = err == nil
		return nil
	}
	m.ring.release()
	m.ring = nil
	if err := d.from.unring(d.queue); err != nil {
		return err
	}
	d.tally.Uncut++
	d.public.store(&d.tally)
	return nil
}
