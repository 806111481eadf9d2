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
// In = Out + HostDown + TooLong + Kept after every Send, whatever it returned.
type Tally struct {
	In, InBytes   uint64 // received
	Out, OutBytes uint64 // written
	HostDown      uint64 // frames given up because the receiving interface was down, or gone, or refused them until Stop
	TooLong       uint64 // frames longer than the receiving interface's MTU allows; a TAP takes any length
	Kept          int64  // frames that were received and not given to Send, less those that were given and not received
	Retries       uint64 // times a write was refused for the moment and tried again
	Oversize      uint64 // frames longer than the link's room, discarded unread; not part of In
}

// Link moves frames in one direction of a queue pair. Only Stop may be called from another
// goroutine than the one that receives and sends.
type Link struct {
	from, to *Device
	source   *os.File
	in, out  syscall.RawConn
	message  *message // where from is a packet socket
	room     int
	slots    [][]byte
	batch    [][]byte // received, lies in slots
	taken    int      // frames received since the last Send
	rest     [][]byte // still to be sent
	errno    error    // what ended fill or drain
	tally    Tally
	stopped  atomic.Bool

	// Closures made once: the poller takes functions, and one made per call would be allocated.
	fill  func(fd uintptr) bool
	look  func(fd uintptr)
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
	out, err := to.writer(queue).SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &Link{from: from, to: to, source: from.queues[queue], in: in, out: out, room: room,
		slots: newSlots(room, tail), batch: make([][]byte, 0, Batch)}
	if from.out != nil {
		l.message = new(message)
	}
	l.fill = l.readBatch
	l.look = l.lookAgain
	l.drain = l.writeBatch
	return l, l.source.SetReadDeadline(time.Now().Add(heartbeat))
}

// head is the room in front of a frame, for what a packet socket tells apart from it.
const head = 16

// newSlots cuts one mapping into a batch of slots, each with head room, a frame's room and tail. Each
// read may fill one byte more than a frame's room, for a longer frame is cut short by the kernel
// without a word and has to be noticed.
func newSlots(room, tail int) [][]byte {
	filled := head + room + 1
	whole := head + room + max(tail, 1)
	stride := (whole + 63) &^ 63
	slab := make([]byte, Batch*stride)
	slots := make([][]byte, Batch)
	for i := range slots {
		slots[i] = slab[i*stride : i*stride+filled : i*stride+whole]
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
			if l.in.Control(l.look) != nil {
				return nil, fmt.Errorf("read from %s: %w", l.from.name, os.ErrClosed)
			}
		}
		if len(l.batch) > 0 {
			l.taken += len(l.batch)
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
		frame, err := l.readFrame(int(fd), l.slots[len(l.batch)])
		switch {
		case err == unix.EINTR:
		case err == unix.ENETDOWN: // a packet socket's, once: frames come again when the interface is up
		case err == unix.EMSGSIZE, len(frame) > l.room:
			l.tally.Oversize++
		case err != nil:
			l.errno = err
			return err != unix.EAGAIN || len(l.batch) > 0
		default:
			l.batch = append(l.batch, frame)
			l.tally.In++
			l.tally.InBytes += uint64(len(frame))
		}
	}
	return true
}

func (l *Link) readFrame(fd int, slot []byte) ([]byte, error) {
	if l.message != nil {
		return l.message.receive(fd, slot)
	}
	n, err := unix.Read(fd, slot[head:])
	if err != nil {
		return nil, err
	}
	return slot[head : head+n], nil
}

// lookAgain reads what is ready, and notices an interface that is gone, which a packet socket's
// reader is not told.
func (l *Link) lookAgain(fd uintptr) {
	l.readBatch(fd)
	if l.message != nil && l.errno == unix.EAGAIN {
		if _, err := boundIndex(int(fd)); err != nil {
			l.errno = err
		}
	}
}

// Send writes the frames in order. A frame that is refused for the moment is tried again until it
// is taken, and none overtakes it; meanwhile nothing is received, so that the burst waits in the
// sending interface's own queue. A frame for an interface that is down is counted and given up.
// An error means that no frame can be sent any more. The slots belong to the link again.
//
// The frames need not be those received: a stage in between may have kept some or made others.
func (l *Link) Send(frames [][]byte) error {
	l.tally.Kept += int64(l.taken - len(frames))
	l.taken, l.rest = 0, frames
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
			if l.to.unplugged() {
				l.tally.HostDown++
				l.rest = l.rest[1:]
				continue
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
		case unix.EIO, unix.ENETDOWN:
			l.tally.HostDown++
		case unix.EMSGSIZE:
			l.tally.TooLong++
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
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return d.gone()
	}
	return fmt.Errorf("%s %s: %w", what, d.name, err)
}
