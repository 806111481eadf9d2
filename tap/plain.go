package tap

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// plain is the engine of a lane with one link: a system call for each frame read and each written.
type plain struct {
	link    *Link
	in, out syscall.RawConn
	message *message // where frames come from a packet socket
	busy    time.Duration
	awake   time.Time // when something last came, where busy is set
	slots   [][]byte
	batch   [][]byte // received, lies in slots
	rest    [][]byte // still to be sent
	errno   error    // what ended fill or drain
	stopped atomic.Bool

	// Closures made once: the poller takes functions, and one made per call would be allocated.
	fill  func(fd uintptr) bool
	look  func(fd uintptr)
	drain func(fd uintptr)
}

func newPlain(l *Link, o Options) (*plain, error) {
	source, err := l.from.pollable(l.queue)
	if err != nil {
		return nil, err
	}
	l.source = source
	in, err := source.SyscallConn()
	if err != nil {
		return nil, err
	}
	out, err := l.target.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &plain{link: l, in: in, out: out, busy: o.BusyPoll, awake: time.Now(),
		slots: l.slots(make([]byte, Batch*l.slotSize())), batch: make([][]byte, 0, Batch)}
	if l.from.out != nil {
		p.message = new(message)
	}
	p.fill, p.look, p.drain = p.readBatch, p.lookAgain, p.writeBatch
	return p, l.source.SetReadDeadline(time.Now().Add(heartbeat))
}

func (p *plain) stop() {
	p.stopped.Store(true)
	p.link.source.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, whose reader is awake
}

// next waits for at least one frame and returns all that are ready, up to Batch.
//
//  1. Read until the queue is empty or the batch full; sleep only on an empty batch.
//  2. After a heartbeat without waking, read once more and look whether the interface still exists:
//     its deletion wakes sleepers a moment before it shows, so a wake-up can come too early.
//  3. An error behind frames waits until they have been taken; it comes again.
func (p *plain) next() (*Link, [][]byte, error) {
	l := p.link
	p.batch = p.batch[:0]
	for !p.stopped.Load() {
		p.errno = nil
		if !p.spin() && p.in.Read(p.fill) != nil {
			l.source.SetReadDeadline(time.Now().Add(heartbeat)) // Stop sets its mark first, so none of its deadlines is lost
			if p.in.Control(p.look) != nil {
				return nil, nil, l.from.failed("read from", os.ErrClosed)
			}
		}
		l.public.store(l.tally)
		if len(p.batch) > 0 {
			if p.busy > 0 {
				p.awake = time.Now()
			}
			l.taken += len(p.batch)
			return l, p.batch, nil
		}
		if p.errno != nil && p.errno != unix.EAGAIN {
			return nil, nil, l.from.failed("read from", p.errno)
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

// readBatch reads what is ready; false asks to be called again when there is more.
func (p *plain) readBatch(fd uintptr) bool {
	l := p.link
	for len(p.batch) < Batch {
		frame, err := p.readFrame(int(fd), p.slots[len(p.batch)])
		switch {
		case err == unix.EINTR:
		case err == unix.ENETDOWN: // a packet socket's, once: frames come again when the interface is up
		case err == unix.EMSGSIZE, len(frame) > l.room:
			l.tally.Oversize++
		case err != nil:
			p.errno = err
			return err != unix.EAGAIN || len(p.batch) > 0
		default:
			p.batch = append(p.batch, frame)
			l.tally.In++
			l.tally.InBytes += uint64(len(frame))
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

func (p *plain) send(l *Link, frames [][]byte) error {
	p.rest = frames
	for pause, left := firstPause, len(frames); ; pause = min(2*pause, longestPause) {
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
		if len(p.rest) < left {
			pause, left = firstPause, len(p.rest)
		}
		l.tally.Retries++
		time.Sleep(pause)
	}
}

// giveUp counts the frames that will not be written.
func (p *plain) giveUp(err error) error {
	p.link.tally.HostDown += uint64(len(p.rest))
	p.rest = nil
	return p.link.to.failed("write to", err)
}

// writeBatch writes until a frame is refused for the moment or for good.
func (p *plain) writeBatch(fd uintptr) {
	l := p.link
	for len(p.rest) > 0 {
		n, err := unix.Write(int(fd), p.rest[0])
		switch {
		case err == nil:
			l.tally.Out++
			l.tally.OutBytes += uint64(n)
		case err == unix.EINTR:
			continue
		case !l.lose(err):
			p.errno = err
			return
		}
		p.rest = p.rest[1:]
	}
}
