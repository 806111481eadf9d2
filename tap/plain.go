package tap

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// plain is the engine of a worker with one direction: a system call for each frame read and each written.
type plain struct {
	pulse
	direction *Direction
	in, out   syscall.RawConn
	message   *message // where frames come from a packet socket
	busy      time.Duration
	awake     time.Time // when something last came, where busy is set
	slots     [][]byte
	batch     [][]byte // received, lies in slots
	rest      [][]byte // still to be sent
	refusal   refusal  // of the first of them
	errno     error    // what ended fill or drain
	stopped   atomic.Bool

	// Closures made once: the poller takes functions, and one made per call would be allocated.
	fill  func(fd uintptr) bool
	look  func(fd uintptr)
	drain func(fd uintptr)
}

func newPlain(d *Direction, o Options) (*plain, error) {
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
	p := &plain{direction: d, in: in, out: out, busy: o.BusyPoll, awake: time.Now(),
		slots: d.slots(make([]byte, Batch*d.slotSize())), batch: make([][]byte, 0, Batch)}
	if d.from.out != nil {
		p.message = newMessage()
	}
	p.fill, p.look, p.drain = p.readBatch, p.lookAgain, p.writeBatch
	return p, d.source.SetReadDeadline(time.Now().Add(heartbeat))
}

// open has nothing to do: newPlain holds all.
func (p *plain) open() error { return nil }

func (p *plain) stop() {
	p.stopped.Store(true)
	p.direction.source.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, whose reader is awake
}

// next waits for at least one frame and returns all that are ready, up to Batch.
//
//  1. Read until the queue is empty or the batch full; sleep only on an empty batch.
//  2. After a heartbeat without waking, read once more and look whether the interface still exists:
//     its deletion wakes sleepers a moment before it shows, so a wake-up can come too early.
//  3. An error behind frames waits until they have been taken; it comes again.
func (p *plain) next() (*Direction, [][]byte, error) {
	d := p.direction
	p.batch = p.batch[:0]
	for !p.ended() {
		p.count.Add(1)
		p.errno = nil
		if !p.spin() && p.in.Read(p.fill) != nil {
			d.source.SetReadDeadline(time.Now().Add(heartbeat)) // Stop sets its mark first, so none of its deadlines is lost
			if p.in.Control(p.look) != nil {
				return nil, nil, d.from.failed("read from", os.ErrClosed)
			}
		}
		d.public.store(d.tally)
		if len(p.batch) > 0 {
			if p.busy > 0 {
				p.awake = time.Now()
			}
			d.taken += len(p.batch)
			return d, p.batch, nil
		}
		if p.errno != nil && p.errno != unix.EAGAIN {
			return nil, nil, d.from.failed("read from", p.errno)
		}
	}
	return nil, nil, ErrStopped
}

// spin reads without sleeping for as long after the last frame as that was asked for, and tells
// whether it got anything.
func (p *plain) spin() bool {
	for p.busy > 0 && time.Since(p.awake) < p.busy && !p.stopped.Load() {
		if p.in.Control(p.look) != nil || len(p.batch) > 0 || p.errno != nil && p.errno != unix.EAGAIN {
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
		case err == unix.ENETDOWN: // a packet socket's, once: frames come again when the interface is up
		case err == errUncut:
			d.tally.Uncut++
		case err == unix.EMSGSIZE, len(frame) > d.room:
			d.tally.Oversize++
		case err != nil:
			p.errno = err
			return err != unix.EAGAIN || len(p.batch) > 0
		default:
			p.batch = append(p.batch, frame)
			d.tally.In++
			d.tally.InBytes += uint64(len(frame))
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

// lookAgain reads what is ready, and notices an interface that is gone, which a packet socket's
// reader is not told.
func (p *plain) lookAgain(fd uintptr) {
	p.readBatch(fd)
	if p.message != nil && p.errno == unix.EAGAIN {
		if _, err := boundIndex(int(fd)); err != nil {
			p.errno = err
		}
	}
}

func (p *plain) send(d *Direction, frames [][]byte) error {
	p.rest = frames
	for {
		p.errno = nil
		if p.out.Control(p.drain) != nil {
			return p.giveUp(os.ErrClosed)
		}
		switch {
		case p.errno == nil:
			return nil
		case !refused(p.errno):
			return p.giveUp(p.errno)
		case p.stopped.Load():
			return p.giveUp(ErrStopped)
		}
		d.public.store(d.tally)
		p.count.Add(1)
		time.Sleep(p.refusal.left())
	}
}

// giveUp counts the frames that will not be written.
func (p *plain) giveUp(err error) error {
	p.direction.tally.HostDown += uint64(len(p.rest))
	p.rest = nil
	return p.direction.to.failed("write to", err)
}

// writeBatch writes until a frame is refused for the moment, or with all others.
func (p *plain) writeBatch(fd uintptr) {
	d := p.direction
	for len(p.rest) > 0 {
		n, err := unix.Write(int(fd), p.rest[0])
		switch {
		case err == nil:
			d.tally.Out++
			d.tally.OutBytes += uint64(n)
		case err == unix.EINTR:
			continue
		case refused(err):
			d.tally.Retries++
			if !p.refusal.again(err, d.to, int(fd)) {
				p.errno = err
				return
			}
			d.tally.Refused++
			p.rest = p.rest[1:]
			continue
		case !d.lose(err):
			p.errno = err
			return
		}
		p.refusal.over()
		p.rest = p.rest[1:]
	}
}
