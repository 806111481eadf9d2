package tap

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// place is where a slot is.
type place uint8

const (
	empty  place = iota // no frame is in it, and the kernel does not know it
	given               // the kernel may fill it
	filled              // waits in line to be handed out
	lent                // with the caller of next, until what that sends is settled
)

// reader is the read side of a ring port. Through a feed it lets the kernel fill free slots, and it hands
// out filled ones in the order in which their frames came.
type reader struct {
	direction *Direction
	uring     *uring
	index     int // of the port
	fd        int
	feed      feed

	prefix int // bytes of a virtio header in front of each frame
	slots  [][]byte
	places [slotCount]place
	frames [slotCount][]byte // by slot
	line   [slotCount]uint16 // filled slots, in the order of their frames
	first  int               // start of the line
	filled int
	lent   []uint16
	batch  [][]byte // handed out
	cut    *cutting // nil if frames come without a virtio header
	merged bool     // one of the last frames handed out was cut from a merged one
}

// feed is how the kernel is asked to fill slots: multishot or singles.
type feed interface {
	give(slot uint16) // lets a slot be filled
	queue()
	// answered returns the slot of a completion that has one, else -1, and whether such a completion was
	// expected.
	answered(c completion, index int) (slot int, known bool)
	woken() (known bool) // that there is something to read
	underWay() bool
}

// answered takes the completion of a read. After an error nothing more can be read.
func (r *reader) answered(c completion, index int) error {
	d, n, errno := r.direction, int(c.result), unix.Errno(-c.result)
	room := r.prefix + d.longest()
	slot, known := r.feed.answered(c, index)
	switch {
	case !known || slot >= 0 && r.places[slot] != given:
		return fmt.Errorf("read from %s: io_uring answers for slot %d, which it was not given", d.from.name, max(slot, index))
	case n >= 0 && (slot < 0 || n <= r.prefix || n > room+1):
		return fmt.Errorf("read from %s: io_uring answers with %d bytes for slot %d, which has room for %d", d.from.name, n, slot, room+1)
	case n > room:
		d.tally.Oversize++
		r.giveBack(uint16(slot))
	case n > 0:
		r.places[slot] = filled
		r.frames[slot] = r.slots[slot][head : head+n-r.prefix]
		if r.cut == nil { // if cut, it is counted once it is known how many frames it stands for
			d.received(r.frames[slot])
		}
		r.line[(r.first+r.filled)%slotCount] = uint16(slot)
		r.filled++
	default:
		if slot >= 0 {
			r.giveBack(uint16(slot))
		}
		switch errno {
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM: // nothing to read, no free slot, no memory just now
		case unix.ECANCELED, unix.EINTR: // by the end of the ring, or by a signal
		default:
			return d.from.failed("read from", errno)
		}
	}
	return nil
}

// woken takes the completion of a poll.
func (r *reader) woken() error {
	if r.feed.woken() {
		return nil
	}
	return fmt.Errorf("read from %s: io_uring answers for a poll that is not under way", r.direction.from.name)
}

func (r *reader) giveBack(slot uint16) {
	r.places[slot] = empty
	r.feed.give(slot)
}

// handOut returns the next batch. The last one must be settled.
func (r *reader) handOut() [][]byte {
	for _, slot := range r.lent {
		r.giveBack(slot)
	}
	r.lent, r.batch = r.lent[:0], r.batch[:0]
	merged := false
	if r.cut != nil {
		r.cut.pieces = r.cut.pieces[:0]
		r.takePieces()
		merged = len(r.batch) > 0
	}
	for r.filled > 0 && len(r.batch) < Batch {
		slot := r.line[r.first]
		r.first = (r.first + 1) % slotCount
		r.filled--
		r.places[slot] = lent
		if r.cut != nil && r.setAside(slot) {
			merged = true
			r.takePieces()
			continue
		}
		r.lent = append(r.lent, slot)
		r.batch = append(r.batch, r.frames[slot])
	}
	if len(r.batch) > 0 {
		r.merged = merged
	}
	r.direction.taken += len(r.batch)
	return r.batch
}

// pending reports whether there is anything to hand out.
func (r *reader) pending() bool { return r.filled > 0 || r.cut != nil && r.cut.cutter.Len() > 0 }

// discard takes all that was not handed out, and returns how many frames those were.
func (r *reader) discard() (frames int) {
	for r.pending() {
		frames += len(r.handOut())
	}
	r.direction.taken -= frames
	return frames
}

// multishot feeds through a ring of buffers, which a single entry uses in turn for as long as there are
// any. The kernel fills those given longest ago. So where merged frames come, with slots of 64 KiB, only a few
// slots are given: they stay in the processor's cache. It takes them by doubling if the kernel used up all for
// frames that are not merged.
type multishot struct {
	*reader
	buffers  []buffer
	provided uint16 // buffers ever given to the kernel, modulo 65536
	given    int    // buffers that the kernel has
	most     int    // that it is to have
	spare    []uint16
	usedUp   bool // it had none left
	reading  bool
}

// fewSlots hold more merged frames than a batch does.
const fewSlots = 8

func newMultishot(r *reader, buffers []buffer) *multishot {
	m := &multishot{reader: r, buffers: buffers, most: slotCount}
	if r.cut != nil {
		m.most, m.spare = fewSlots, make([]uint16, 0, slotCount)
	}
	return m
}

func (m *multishot) underWay() bool { return m.reading }

func (m *multishot) woken() bool { return false }

func (m *multishot) give(slot uint16) {
	if m.given >= m.most {
		m.spare = append(m.spare, slot)
		return
	}
	m.given++
	m.places[slot] = given
	room := m.slots[slot][head-m.prefix:]
	b := &m.buffers[m.provided%slotCount]
	b.address, b.length, b.number = addressOf(room), uint32(len(room)), slot
	m.provided++
	last := struct{ number, tail uint16 }{m.buffers[0].number, m.provided}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&m.buffers[0].number)), *(*uint32)(unsafe.Pointer(&last)))
}

func (m *multishot) queue() {
	m.resize()
	if m.reading || m.given == 0 {
		return
	}
	m.reading = true
	s := m.uring.submit()
	s.op, s.fd, s.data = opReadMultishot, int32(m.fd), tag(ofRead, m.index, 0, 0)
	s.flags, s.buffers = sqeBufferSelect, uint16(m.index)
}

// resize lets the kernel have as many slots as the last frames suggest.
func (m *multishot) resize() {
	switch {
	case m.cut == nil:
	case m.merged:
		m.most = fewSlots
	case m.usedUp:
		m.most = min(2*m.most, slotCount)
	}
	m.usedUp = false
	for last := len(m.spare) - 1; last >= 0 && m.given < m.most; last-- {
		slot := m.spare[last]
		m.spare = m.spare[:last]
		m.give(slot)
	}
}

func (m *multishot) answered(c completion, _ int) (slot int, known bool) {
	if !m.reading {
		return -1, false
	}
	m.reading = c.flags&cqeMore != 0
	if c.flags&cqeBuffer == 0 || c.result < 0 {
		return -1, true
	}
	m.given--
	m.usedUp = m.usedUp || m.given == 0
	slot = int(c.flags >> cqeBufferBit)
	return slot, slot < slotCount
}

const leastBurst = 4 // single reads, after the queue was empty

// singles feeds with one entry for each slot, which does not wait. When nothing came, it queues an entry
// that waits for something.
type singles struct {
	*reader
	free    []uint16
	reads   int  // under way
	burst   int  // how many to queue at once
	dry     bool // there was nothing to read
	polling bool // waits until there is
}

func (s *singles) underWay() bool { return s.reads > 0 || s.polling }

func (s *singles) woken() (known bool) {
	known, s.polling = s.polling, false
	return known
}

func (s *singles) give(slot uint16) { s.free = append(s.free, slot) }

// queue queues more reads the more frames came last time, since a read that finds nothing has its price
// too.
func (s *singles) queue() {
	if s.underWay() {
		return
	}
	if s.dry {
		s.dry, s.polling = false, true
		e := s.uring.submit()
		e.op, e.fd, e.opFlags, e.data = opPollAdd, int32(s.fd), unix.POLLIN, tag(ofPoll, s.index, 0, 0)
		return
	}
	for s.reads < s.burst && len(s.free) > 0 {
		slot := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.places[slot] = given
		room := s.slots[slot][head-s.prefix:]
		e := s.uring.submit()
		e.op, e.fd, e.opFlags, e.data = opRead, int32(s.fd), unix.RWF_NOWAIT, tag(ofRead, s.index, 0, int(slot))
		e.address, e.length = addressOf(room), uint32(len(room))
		s.reads++
	}
	s.burst = min(2*s.burst, Batch)
}

func (s *singles) answered(c completion, index int) (slot int, known bool) {
	if index >= slotCount || s.places[index] != given {
		return -1, false
	}
	s.reads--
	if unix.Errno(-c.result) == unix.EAGAIN {
		s.dry, s.burst = true, leastBurst
	}
	return index, true
}
