package tap

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Batch is the largest number of frames that one Receive returns.
const Batch = 64

const (
	firstPause   = 50 * time.Microsecond // before a refused frame is tried again; doubled each time
	longestPause = 5 * time.Millisecond
	heartbeat    = time.Second // how often a sleeping reader looks whether its interface still exists
)

// Tally counts what a link has done since it was made.
// In = Out + HostDown after every Send, whatever it returned.
type Tally struct {
	In, InBytes   uint64 // received and handed on
	Out, OutBytes uint64 // written
	HostDown      uint64 // frames given up because the receiving interface was down, or gone, or refused them until Stop
	Retries       uint64 // times a write was refused for the moment and tried again
	Oversize      uint64 // frames longer than the link's room, discarded unread; not part of In
}

// Link moves frames in one direction of a queue pair. Only Stop may be called from another
// goroutine than the one that receives and sends.
type Link struct {
	from, to *Device
	source   *os.File
	in, out  syscall.RawConn
	room     int
	slots    [][]byte
	batch    [][]byte // received, lies in slots
	rest     [][]byte // still to be sent
	errno    error    // what ended fill or drain
	tally    Tally
	stopped  atomic.Bool

	// Closures made once: the poller takes functions, and one made per call would be allocated.
	fill  func(fd uintptr) bool
	fill1 func(fd uintptr)
	drain func(fd uintptr)
}

// NewLink joins one queue of from to the same queue of to. A frame read may be up to room bytes long
// and has tail bytes of spare capacity behind those. Each queue may be read by one link and written
// by one.
func NewLink(from, to *Device, queue, room, tail int) (*Link, error) {
	if queue < 0 || queue >= from.Queues() || queue >= to.Queues() {
		return nil, fmt.Errorf("no queue %d on both %s and %s", queue, from.name, to.name)
	}
	in, err := from.queues[queue].SyscallConn()
	if err != nil {
		return nil, err
	}
	out, err := to.queues[queue].SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &Link{from: from, to: to, source: from.queues[queue], in: in, out: out, room: room,
		slots: newSlots(room+1, max(tail, 1)), batch: make([][]byte, 0, Batch)}
	l.fill = l.readBatch
	l.fill1 = func(fd uintptr) { l.readBatch(fd) }
	l.drain = l.writeBatch
	return l, l.source.SetReadDeadline(time.Now().Add(heartbeat))
}

// newSlots cuts one mapping into a batch of slots. Each read may fill one byte more than a frame's
// room, for a longer frame is cut short by the kernel without a word and has to be noticed.
func newSlots(room, tail int) [][]byte {
	stride := (room + tail + 63) &^ 63
	slab := make([]byte, Batch*stride)
	slots := make([][]byte, Batch)
	for i := range slots {
		slots[i] = slab[i*stride : i*stride+room : i*stride+room+tail-1]
	}
	return slots
}

// Tally returns the counts so far.
func (l *Link) Tally() Tally { return l.tally }

// Stop makes a blocked Receive, and every later one, return ErrStopped. Frames already received can
// still be sent.
func (l *Link) Stop() {
	l.stopped.Store(true)
	l.source.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, whose reader is awake
}

// Receive waits for at least one frame and returns all that are ready, up to Batch, in order. They
// lie in the link's slots and are the caller's until its next Receive.
//
//  1. Read until the queue is empty or the batch full; sleep only on an empty batch.
//  2. After a heartbeat without waking, read once more and look whether the interface still exists:
//     its deletion wakes sleepers a moment before it shows, so a wake-up can come too early.
//  3. An error behind frames waits until they have been taken; it comes again.
func (l *Link) Receive() ([][]byte, error) {
	l.batch = l.batch[:0]
	for !l.stopped.Load() {
		l.errno = nil
		if l.in.Read(l.fill) != nil {
			l.source.SetReadDeadline(time.Now().Add(heartbeat)) // Stop sets its mark first, so none of its deadlines is lost
			if l.in.Control(l.fill1) != nil {
				return nil, fmt.Errorf("read from %s: %w", l.from.name, os.ErrClosed)
			}
		}
		if len(l.batch) > 0 {
			return l.batch, nil
		}
		if l.errno != nil && l.errno != unix.EAGAIN {
			return nil, l.from.failed("read from", l.errno)
		}
	}
	return nil, ErrStopped
}

// readBatch reads what is ready; false asks to be called again when there is more.
func (l *Link) readBatch(fd uintptr) bool {
	for len(l.batch) < Batch {
		slot := l.slots[len(l.batch)]
		n, err := unix.Read(int(fd), slot)
		switch {
		case err == unix.EINTR:
		case err != nil:
			l.errno = err
			return err != unix.EAGAIN || len(l.batch) > 0
		case n > l.room:
			l.tally.Oversize++
		default:
			l.batch = append(l.batch, slot[:n])
			l.tally.In++
			l.tally.InBytes += uint64(n)
		}
	}
	return true
}

// Send writes the frames in order. A frame that is refused for the moment is tried again until it
// is taken, and none overtakes it; meanwhile nothing is received, so that the burst waits in the
// sending interface's own queue. A frame for an interface that is down is counted and given up.
// An error means that no frame can be sent any more. The slots belong to the link again.
func (l *Link) Send(frames [][]byte) error {
	l.rest = frames
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		l.errno = nil
		if l.out.Control(l.drain) != nil {
			return l.giveUp(os.ErrClosed)
		}
		switch l.errno {
		case nil:
			return nil
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			if l.stopped.Load() {
				return l.giveUp(ErrStopped)
			}
			l.tally.Retries++
			time.Sleep(pause)
		default:
			return l.giveUp(l.errno)
		}
	}
}

// giveUp counts the frames that will not be written.
func (l *Link) giveUp(err error) error {
	l.tally.HostDown += uint64(len(l.rest))
	l.rest = nil
	return l.to.failed("write to", err)
}

// writeBatch writes until a frame is refused for another reason than a down interface.
func (l *Link) writeBatch(fd uintptr) {
	for len(l.rest) > 0 {
		n, err := unix.Write(int(fd), l.rest[0])
		switch err {
		case nil:
			l.tally.Out++
			l.tally.OutBytes += uint64(n)
		case unix.EIO:
			l.tally.HostDown++
		case unix.EINTR:
			continue
		default:
			l.errno = err
			return
		}
		l.rest = l.rest[1:]
	}
}

// failed names the interface that an operation failed on, and tells a deleted one apart.
func (d *Device) failed(what string, err error) error {
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) {
		return d.gone()
	}
	return fmt.Errorf("%s %s: %w", what, d.name, err)
}
