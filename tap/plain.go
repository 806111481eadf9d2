package tap

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// plain is the engine of a worker with one direction: a system call for each frame read and each written.
type plain struct {
	outlet
	in      syscall.RawConn
	message *message // if frames come with a virtio header
	busy    time.Duration
	awake   time.Time // when something last came, if busy is set
	slots   [][]byte
	batch   [][]byte // received, lies in slots
	failure error    // what ended fill

	// Closures made once: the poller takes functions, and one made per call would be allocated.
	fill func(fd uintptr) bool
	look func(fd uintptr)
}

func newPlain(d *Direction, o Options) (*plain, error) {
	if d.from.hasRing(d.queue) {
		return nil, d.from.otherEngine()
	}
	source, err := d.from.pollable(d.queue)
	if err != nil {
		return nil, err
	}
	d.source = source
	in, err := source.SyscallConn()
	if err != nil {
		return nil, err
	}
	out, err := d.target.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &plain{outlet: outlet{direction: d, sink: oneByOne{}, reach: out.Control}, in: in, busy: o.BusyPoll, awake: time.Now(),
		slots: d.slots(make([]byte, Batch*d.slotSize())), batch: make([][]byte, 0, Batch)}
	if d.from.attached() || d.from.virtio {
		p.message = newMessage(d.from.attached())
		p.message.cutter = d.cutter()
	}
	p.fill, p.look, p.drain = p.readBatch, p.lookAgain, p.write
	return p, d.source.SetReadDeadline(time.Now().Add(heartbeat))
}

// open has nothing to do: newPlain has opened everything.
func (p *plain) open() error { return nil }

func (p *plain) stop() {
	p.stopped.Store(true)
	p.direction.source.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, whose reader is awake
}

// next waits for at least one frame and returns all that are ready, up to Batch.
//
//  1. Read until the queue is empty or the batch full; sleep only on an empty batch.
//  2. After a heartbeat without being woken, read once more and check that the interface still exists: its
//     deletion wakes sleepers a moment before it shows, so waking up alone may be too early.
//  3. An error after some frames waits until those have been taken; it occurs again.
func (p *plain) next() (*Direction, [][]byte, error) {
	d := p.direction
	p.batch = p.batch[:0]
	for !p.ended() {
		p.count.Add(1)
		p.failure = nil
		if !p.spin() && p.in.Read(p.fill) != nil {
			d.source.SetReadDeadline(time.Now().Add(heartbeat)) // Stop sets its mark first, so none of its deadlines is lost
			if p.in.Control(p.look) != nil {
				return nil, nil, d.from.failed("read from", os.ErrClosed)
			}
		}
		d.public.store(&d.tally)
		if len(p.batch) > 0 {
			if p.busy > 0 {
				p.awake = time.Now()
			}
			d.taken += len(p.batch)
			return d, p.batch, nil
		}
		switch {
		case p.failure == nil, p.failure == unix.EAGAIN:
		case refused(p.failure): // memory is short
			time.Sleep(longestPause)
		default:
			return nil, nil, d.from.failed("read from", p.failure)
		}
	}
	return nil, nil, ErrStopped
}

// spin reads without sleeping for as long after the last frame as BusyPoll asks, and reports whether it got
// anything.
func (p *plain) spin() bool {
	for p.busy > 0 && time.Since(p.awake) < p.busy && !p.stopped.Load() {
		if p.in.Control(p.look) != nil || len(p.batch) > 0 || p.failure != nil && p.failure != unix.EAGAIN {
			return true
		}
	}
	return false
}

// ended reports whether the engine was stopped and has handed out all that it received.
func (p *plain) ended() bool {
	return p.stopped.Load() && (p.message == nil || !p.message.pending())
}

// readBatch reads what is ready; false asks to be called again when there is more.
func (p *plain) readBatch(fd uintptr) bool {
	d := p.direction
	for len(p.batch) < Batch && !p.ended() {
		frame, err := p.readFrame(int(fd), p.slots[len(p.batch)])
		switch {
		case err == unix.EINTR:
		case err == unix.ENETDOWN: // from a packet socket, once: frames come again when the interface is up
		case err == errUncut:
			d.tally.Uncut++
		case err == unix.EMSGSIZE, len(frame) > d.room:
			d.tally.Oversize++
		case err != nil:
			p.failure = err
			return err != unix.EAGAIN || len(p.batch) > 0
		default:
			p.batch = append(p.batch, frame)
			d.received(frame)
		}
	}
	return true
}

func (p *plain) readFrame(fd int, slot []byte) ([]byte, error) {
	if p.message != nil {
		return p.message.receive(fd, slot)
	}
	n, err := unix.Read(fd, slot[head:])
	if err != nil {
		return nil, err
	}
	return slot[head : head+n], nil
}

// lookAgain reads what is ready, and notices a deleted interface, of which a packet socket's reader is not
// told.
func (p *plain) lookAgain(fd uintptr) {
	p.readBatch(fd)
	if p.direction.from.attached() && p.failure == unix.EAGAIN {
		if _, err := boundIndex(int(fd)); err != nil {
			p.failure = err
		}
	}
}
