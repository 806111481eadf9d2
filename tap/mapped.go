package tap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mapped is the engine of a worker that takes one direction's frames out of a packet ring, on a thread
// of its own. They are worked on where the kernel has put them, and written from there: to a packet
// socket by sendmmsg, to a TAP by an io_uring where there is one. While frames lie in the ring a batch
// costs one call, and none to read it.
type mapped struct {
	outlet
	ring    *packetRing
	message message // receives what is too long for a slot
	batch   [][]byte
	long    [][]byte // slots of our own for such frames; none until there was one
	busy    time.Duration
	awake   time.Time // when something last came, where busy is set
	polled  [2]unix.PollFd
	in, out int   // descriptors of its own
	last    error // why the engine ended; it holds nothing from then on

	mutex   sync.Mutex // guards what it holds until its thread begins, and what wakes it then
	started bool
	alarm   int // an eventfd while the engine is up, else -1
}

// newMapped makes all that the engine needs, so that what is short is found before the first frame.
// Until its thread begins it belongs to its devices: see Device.Close.
func newMapped(d *Direction, o Options) (*mapped, error) {
	m := &mapped{in: -1, out: -1, alarm: -1, busy: o.BusyPoll, batch: make([][]byte, 0, Batch)}
	m.direction = d
	m.drain = m.write
	m.reach = func(do func(fd uintptr)) error { do(uintptr(m.out)); return nil }
	if err := m.equip(o); err != nil {
		return nil, m.end(err)
	}
	d.from.holds(m)
	d.to.holds(m)
	return m, nil
}

func (m *mapped) equip(o Options) (err error) {
	d := m.direction
	if m.in, err = duplicate(d.source); err != nil {
		return d.from.failed("read from", err)
	}
	if m.out, err = duplicate(d.target); err != nil {
		return d.to.failed("write to", err)
	}
	if m.alarm, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	m.polled = [2]unix.PollFd{{Fd: int32(m.in), Events: unix.POLLIN}, {Fd: int32(m.alarm), Events: unix.POLLIN}}
	switch {
	case d.to.out != nil:
		m.sink = new(together)
	case o.Engine == Ring:
		b, err := newBurst()
		if err != nil {
			return err
		}
		m.sink = b
	default:
		m.sink = oneByOne{}
	}
	m.ring, err = d.from.ringOf(d.queue, d.room, d.tail)
	return err
}

// open binds the engine to the calling goroutine's thread, until finish. It returns why the engine ended.
func (m *mapped) open() error {
	if m.started {
		return m.last
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.last != nil {
		return m.last
	}
	if b, ok := m.sink.(*burst); ok {
		runtime.LockOSThread()
		if err := b.uring.enable(); err != nil {
			defer runtime.UnlockOSThread()
			return m.end(err)
		}
	}
	m.started, m.awake = true, time.Now()
	return nil
}

// begun reports whether the engine is its thread's, or has ended.
func (m *mapped) begun() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.started || m.last != nil
}

// release ends an engine whose thread has not begun, by the time that one of its devices is closed.
func (m *mapped) release() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if !m.started && m.last == nil {
		m.end(fmt.Errorf("%s: %w", m.direction.from.name, os.ErrClosed))
	}
}

// finish ends the engine and lets go of its thread.
func (m *mapped) finish(why error) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, ok := m.sink.(*burst); ok {
		defer runtime.UnlockOSThread()
	}
	return m.end(why)
}

// end lets go of everything. What the kernel may still read stays where it is, for as long as the
// process lives.
func (m *mapped) end(why error) error {
	m.last = why
	reading := false
	if b, ok := m.sink.(*burst); ok {
		reading = b.open > 0
		b.uring.close()
	}
	switch {
	case m.ring == nil:
	case reading:
		abandon(m.ring, m.long, m.batch)
	default:
		m.ring.giveBack()
		m.ring.release()
	}
	for _, fd := range []int{m.in, m.out, m.alarm} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	m.in, m.out, m.alarm = -1, -1, -1
	m.direction.public.store(m.direction.tally)
	return why
}

// stop may be called from any goroutine.
func (m *mapped) stop() {
	m.stopped.Store(true)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.alarm >= 0 {
		unix.Write(m.alarm, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if it has been written often enough
	}
}

func (m *mapped) send(d *Direction, frames [][]byte) error {
	if m.last != nil {
		d.tally.HostDown += uint64(len(frames))
		return m.last
	}
	if err := m.open(); err != nil {
		return err
	}
	return m.outlet.send(d, frames)
}

// next returns all frames that lie in the ring, up to Batch:
//
//  1. Give back the slots of the batch before, which is written.
//  2. Take what is there.
//  3. Where nothing is, sleep until something comes or it is time to look after the interface.
func (m *mapped) next() (*Direction, [][]byte, error) {
	if err := m.open(); err != nil {
		return nil, nil, err
	}
	d := m.direction
	for {
		m.count.Add(1)
		m.ring.giveBack()
		m.batch = m.batch[:0]
		if m.stopped.Load() {
			return nil, nil, m.finish(ErrStopped)
		}
		err := m.take()
		d.public.store(d.tally)
		if len(m.batch) > 0 {
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

// spinning reports whether something came so lately that it is not worth sleeping.
func (m *mapped) spinning() bool { return m.ring.ready() || m.busy > 0 && time.Since(m.awake) < m.busy }

// take makes a batch of the frames in the ring. An error behind frames comes again.
func (m *mapped) take() error {
	d := m.direction
	for len(m.batch) < Batch && m.ring.ready() {
		a, err := m.ring.take()
		if err != nil {
			return d.from.failed("read from", err)
		}
		frame, ok := m.finished(&a)
		if !ok {
			d.tally.Oversize++
			continue
		}
		m.batch = append(m.batch, frame)
		d.tally.In++
		d.tally.InBytes += uint64(len(frame))
	}
	return nil
}

// finished makes a frame as it would be on a wire, with room behind it. It reports false for one that
// is too long, or that the kernel has no more.
func (m *mapped) finished(a *arrival) (frame []byte, ok bool) {
	d := m.direction
	if !a.whole() {
		return m.fetch(a)
	}
	if !fillChecksum(a.vnet(), a.frame()) {
		return nil, false
	}
	a.tag()
	frame = a.frame()
	if len(frame) <= d.room && cap(frame)-len(frame) < d.tail { // of a ring that was made for shorter ones
		frame = append(m.slot()[head:head], frame...)
	}
	return frame, len(frame) <= d.room
}

// fetch receives a frame that its slot was too small for.
func (m *mapped) fetch(a *arrival) (frame []byte, ok bool) {
	for a.copied {
		frame, err := m.message.receive(m.in, m.slot())
		if err != unix.EINTR && err != unix.ENETDOWN { // the latter once after the interface went down
			return frame, err == nil && len(frame) <= m.direction.room
		}
	}
	return nil, false
}

// slot returns room for one frame of the batch outside of the ring.
func (m *mapped) slot() []byte {
	if m.long == nil {
		m.long = m.direction.slots(make([]byte, Batch*m.direction.slotSize()))
	}
	return m.long[len(m.batch)]
}

// sleep waits until a frame comes, or Stop. After a heartbeat, and when the socket says that something
// happened to the interface, it looks whether that is still there.
func (m *mapped) sleep() error {
	n, err := unix.Poll(m.polled[:], int(heartbeat/time.Millisecond))
	switch {
	case errors.Is(err, unix.EINTR):
	case err != nil:
		return fmt.Errorf("wait for %s: %w", m.direction.from.name, err)
	case n == 0:
		return m.remain()
	case m.polled[0].Revents&unix.POLLERR != 0:
		unix.GetsockoptInt(m.in, unix.SOL_SOCKET, unix.SO_ERROR) // which clears it: ENETDOWN, and frames come again when the interface is up
		return m.remain()
	}
	return nil
}

// remain reports whether both interfaces are there, and their devices open.
func (m *mapped) remain() error {
	d := m.direction
	if err := d.from.remains(d.source); err != nil {
		return err
	}
	return d.to.remains(d.target)
}
