package tap

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is the largest number of frames that are handed out at once: two packets and more of 64 KiB that a
// stack had cut to a wire's frames, and that are merged again behind.
const Batch = 128

// heartbeat is how often a sleeping reader checks whether its interface still exists.
const heartbeat = time.Second

// Tally counts what a direction has done since it was made. In = Out + HostDown + TooLong + Refused + Kept
// whenever none of its frames is in flight.
type Tally struct {
	In       uint64 `json:"in"`        // frames received
	InBytes  uint64 `json:"in_bytes"`  //
	Out      uint64 `json:"out"`       // frames written
	OutBytes uint64 `json:"out_bytes"` //
	HostDown uint64 `json:"host_down"` // frames given up because the receiving interface was down or gone, or refused them until Stop
	TooLong  uint64 `json:"too_long"`  // frames longer than the receiving interface's MTU allows; a TAP takes any length
	Refused  uint64 `json:"refused"`   // frames that the receiving interface refused for good while it was up
	Kept     int64  `json:"kept"`      // frames received but not given to Send, minus frames given to Send but not received
	Retries  uint64 `json:"retries"`   // times a write was refused for now and tried again
	Oversize uint64 `json:"oversize"`  // frames longer than the direction's room, discarded unread; not part of In
	Uncut    uint64 `json:"uncut"`     // merged frames that cannot be cut up, discarded; not part of In
}

// Direction moves frames one way between the queues of a pair. It belongs to a Worker.
type Direction struct {
	from, to       *Device
	queue          int
	source, target *os.File
	room, tail     int // bytes of a frame, and after it
	engine         engine
	packer         packer
	taken          int // frames handed out since the last Send
	tally          Tally
	public         counters
}

// engine is how a worker's frames are moved. Of its methods only stop may be called from a goroutine
// other than the worker's.
type engine interface {
	open() error
	rounds() uint64
	next() (*Direction, [][]byte, error)
	send(d *Direction, parcels []parcel) error
	stop()
}

func newDirection(from, to *Device, queue int, o Options) *Direction {
	return &Direction{from: from, to: to, queue: queue, source: from.queues[queue], target: to.writer(queue), room: o.Room, tail: o.Tail,
		packer: newPacker(to)}
}

// From returns the device that the direction's frames come from.
func (d *Direction) From() *Device { return d.from }

// Tally returns the counts as of the latest batch. Anyone may call it at any time.
func (d *Direction) Tally() Tally { return d.public.load() }

// Send writes the frames in order. A frame that is refused for the moment is tried again until it is
// taken, and none overtakes it; meanwhile nothing is received, so a burst waits in the sending
// interface's own queue. A frame for an interface that is down is counted and given up. So is one that an
// attached interface refuses for a fifth of a second although it has no other of ours. After an error no
// frame can be sent.
//
// The frames need not be those received: a stage in between may have kept some or made others. They,
// and their slice, belong to the direction until Next returns frames of it again.
func (d *Direction) Send(frames [][]byte) error {
	d.tally.Kept += int64(d.taken - len(frames))
	d.taken = 0
	err := d.engine.send(d, d.packer.pack(frames))
	d.public.store(&d.tally)
	return err
}

// received counts a frame.
func (d *Direction) received(frame []byte) {
	d.tally.In++
	d.tally.InBytes += uint64(len(frame))
}

// wrote counts the frames of a parcel that was written.
func (d *Direction) wrote(p *parcel) {
	d.tally.Out += uint64(len(p.frames))
	d.tally.OutBytes += uint64(p.bytes)
}

// lose counts the frames of a parcel that was not written, if the error means that they are lost, and reports
// whether they are. A frame too short for a header gets EINVAL.
func (d *Direction) lose(p *parcel, err error) bool {
	switch {
	case err == unix.EIO, err == unix.ENETDOWN:
		d.tally.HostDown += uint64(len(p.frames))
	case err == unix.EMSGSIZE:
		d.tally.TooLong += uint64(len(p.frames))
	case err == unix.EINVAL:
		d.tally.Refused += uint64(len(p.frames))
	default:
		return false
	}
	return true
}

// failed names the interface on which an operation failed. The error of a deleted one wraps ErrGone.
func (d *Device) failed(what string, err error) error {
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return d.gone()
	}
	return fmt.Errorf("%s %s: %w", what, d.name, err)
}

// remain returns an error unless both interfaces exist and their devices are open.
func (d *Direction) remain() error {
	if err := d.from.remains(d.source); err != nil {
		return err
	}
	return d.to.remains(d.target)
}

// remains returns an error unless the device is open and its interface exists.
func (d *Device) remains(f *os.File) error {
	err := control(f, func(fd int) error {
		_, err := d.nameNow(fd)
		return err
	})
	switch {
	case errors.Is(err, os.ErrClosed):
		return fmt.Errorf("%s: %w", d.name, err)
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.ENODEV):
		return d.gone()
	}
	return nil
}

// head is the room before a frame, for what a packet socket delivers separately.
const head = 16

// slotSize is what a slot takes in memory.
func (d *Direction) slotSize() int { return (head + d.longest() + max(d.tail, 1) + 63) &^ 63 }

// longest is how many bytes come at once: a frame's, or those of a merged one, which then takes a slot.
func (d *Direction) longest() int {
	if d.from.virtio {
		return max(d.room, maxMerged)
	}
	return d.room
}

// slots cuts memory into slots, each with head room, room for what comes at once, and tail. A read may fill
// one byte more than that room: the kernel silently truncates a longer frame, which has to be noticed.
func (d *Direction) slots(memory []byte) [][]byte {
	size, filled, whole := d.slotSize(), head+d.longest()+1, head+d.longest()+max(d.tail, 1)
	slots := make([][]byte, len(memory)/size)
	for i := range slots {
		slots[i] = memory[i*size : i*size+filled : i*size+whole]
	}
	return slots
}

// tallied is how many counts a Tally has, each of 64 bits.
const tallied = unsafe.Sizeof(Tally{}) / 8

// counts are those of the tally, in their order.
func (t *Tally) counts() *[tallied]uint64 { return (*[tallied]uint64)(unsafe.Pointer(t)) }

// Add adds the counts of another.
func (t *Tally) Add(other Tally) {
	for i, n := range other.counts() {
		t.counts()[i] += n
	}
}

// counters is a Tally that others may read. The padding keeps directions on separate cache lines.
type counters struct {
	_      [64]byte
	counts [tallied]atomic.Uint64
	_      [64]byte
}

// store is for the one that counts. It writes what has changed: a write costs more than a look.
func (c *counters) store(t *Tally) {
	for i, n := range t.counts() {
		if c.counts[i].Load() != n {
			c.counts[i].Store(n)
		}
	}
}

func (c *counters) load() (t Tally) {
	for i := range c.counts {
		t.counts()[i] = c.counts[i].Load()
	}
	return t
}
