package tap

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Batch is the largest number of frames that are handed out at once.
const Batch = 64

const (
	firstPause   = 50 * time.Microsecond // before a refused frame is tried again; doubled each time that it is
	longestPause = 5 * time.Millisecond
	heartbeat    = time.Second // how often a sleeping reader looks whether its interface still exists
)

// Tally counts what a link has done since it was made.
// In = Out + HostDown + TooLong + Kept whenever none of its frames is under way.
type Tally struct {
	In, InBytes   uint64 // received
	Out, OutBytes uint64 // written
	HostDown      uint64 // frames given up because the receiving interface was down, or gone, or refused them until Stop
	TooLong       uint64 // frames longer than the receiving interface's MTU allows; a TAP takes any length
	Kept          int64  // frames that were received and not given to Send, less those that were given and not received
	Retries       uint64 // times a write was refused for the moment and tried again
	Oversize      uint64 // frames longer than the link's room, discarded unread; not part of In
}

// Link moves frames in one direction of a queue pair. It belongs to a Lane.
type Link struct {
	from, to       *Device
	queue          int
	source, target *os.File
	room, tail     int // bytes of a frame, and behind it
	engine         engine
	taken          int // frames handed out since the last Send
	tally          Tally
	public         counters
}

// engine is how a lane's frames are moved. Only stop may be called from another goroutine than the
// lane's.
type engine interface {
	next() (*Link, [][]byte, error)
	send(l *Link, frames [][]byte) error
	stop()
}

func newLink(from, to *Device, queue int, o Options) *Link {
	return &Link{from: from, to: to, queue: queue, source: from.queues[queue], target: to.writer(queue), room: o.Room, tail: o.Tail}
}

// From returns the device that the link's frames come from.
func (l *Link) From() *Device { return l.from }

// Tally returns the counts at the end of the latest batch. It may be called at any time by anyone.
func (l *Link) Tally() Tally { return l.public.load() }

// Send has the frames written in order. A frame that is refused for the moment is tried again until
// it is taken, and none overtakes it; meanwhile nothing is received, so that the burst waits in the
// sending interface's own queue. A frame for an interface that is down is counted and given up.
// An error means that no frame can be sent any more.
//
// The frames need not be those received: a stage in between may have kept some or made others. They,
// and the slice that holds them, are the link's until Next returns frames of it again.
func (l *Link) Send(frames [][]byte) error {
	l.tally.Kept += int64(l.taken - len(frames))
	l.taken = 0
	err := l.engine.send(l, frames)
	l.public.store(l.tally)
	return err
}

// lose counts a frame that was not written where it is lost by that, and tells whether it is.
func (l *Link) lose(err error) bool {
	switch {
	case err == unix.EIO, err == unix.ENETDOWN:
		l.tally.HostDown++
	case err == unix.EMSGSIZE:
		l.tally.TooLong++
	default:
		return false
	}
	return true
}

// refused tells whether a frame may be taken a moment later.
func refused(err error) bool {
	return err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.ENOMEM
}

// failed names the interface that an operation failed on, and tells a deleted one apart.
func (d *Device) failed(what string, err error) error {
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return d.gone()
	}
	return fmt.Errorf("%s %s: %w", what, d.name, err)
}

// head is the room in front of a frame, for what a packet socket tells apart from it.
const head = 16

// slotSize is what a slot takes in memory.
func (l *Link) slotSize() int { return (head + l.room + max(l.tail, 1) + 63) &^ 63 }

// slots cuts memory into slots, each with head room, a frame's room and tail. Each read may fill one
// byte more than a frame's room, for a longer frame is cut short by the kernel without a word and has
// to be noticed.
func (l *Link) slots(memory []byte) [][]byte {
	size, filled, whole := l.slotSize(), head+l.room+1, head+l.room+max(l.tail, 1)
	slots := make([][]byte, len(memory)/size)
	for i := range slots {
		slots[i] = memory[i*size : i*size+filled : i*size+whole]
	}
	return slots
}

// counters is a tally that others may read. The padding keeps one link's writes off the cache lines
// of the next.
type counters struct {
	_                 [64]byte
	in, inBytes       atomic.Uint64
	out, outBytes     atomic.Uint64
	hostDown, tooLong atomic.Uint64
	kept              atomic.Int64
	retries, oversize atomic.Uint64
	_                 [64]byte
}

func (c *counters) store(t Tally) {
	c.in.Store(t.In)
	c.inBytes.Store(t.InBytes)
	c.out.Store(t.Out)
	c.outBytes.Store(t.OutBytes)
	c.hostDown.Store(t.HostDown)
	c.tooLong.Store(t.TooLong)
	c.kept.Store(t.Kept)
	c.retries.Store(t.Retries)
	c.oversize.Store(t.Oversize)
}

func (c *counters) load() Tally {
	return Tally{In: c.in.Load(), InBytes: c.inBytes.Load(), Out: c.out.Load(), OutBytes: c.outBytes.Load(),
		HostDown: c.hostDown.Load(), TooLong: c.tooLong.Load(), Kept: c.kept.Load(),
		Retries: c.retries.Load(), Oversize: c.oversize.Load()}
}
