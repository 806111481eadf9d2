package tap

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slotCount is how many frames of a link can be in its memory: a batch that is being written, and one
// that is being read. The kernel wants a power of two.
const slotCount = 2 * Batch

const leastBurst = 4 // single reads, after the queue was empty

// way is a link's part in a ring. A slot is in one of these places: with the kernel, to be read into;
// filled, in line to be handed out; or lent, to the caller of next, until what it sends instead has
// been written.
type way struct {
	link    *Link
	index   int // in the ring
	uring   *uring
	in, out int  // descriptors of its own
	single  bool // reads are submitted one by one

	memory   []byte // buffers, then slots
	buffers  []buffer
	provided uint16 // how many buffers were ever given to the kernel, modulo 65536
	slots    [][]byte

	reads   int      // under way
	free    []uint16 // single: slots that no read is under way for
	burst   int      // single: how many reads to submit at once
	dry     bool     // single: the queue was found empty
	polling bool     // single: waiting until it no longer is

	frames [slotCount][]byte // by slot
	line   [slotCount]uint16 // filled slots, in the order of their frames
	first  int               // of the line
	filled int
	lent   []uint16

	batch     [][]byte // handed out
	rest      [][]byte // still to be written
	writing   int      // of those, how many are under way
	linked    bool     // the receiver may refuse a frame
	lost      int      // of the frames under way
	lostBytes int
	again     []int // of the frames under way, those to be written once more
	pause     time.Duration
	until     time.Time // when what was refused is tried again
	dead      bool      // nothing can be written any more
}

// open readies the memory and the descriptors.
func (w *way) open(u *uring) (err error) {
	if w.in, err = duplicate(w.link.source); err != nil {
		return w.link.from.failed("read from", err)
	}
	if w.out, err = duplicate(w.link.target); err != nil {
		return w.link.to.failed("write to", err)
	}
	const ring = slotCount * int(unsafe.Sizeof(buffer{})) // fills its pages, and begins the first
	w.memory, err = unix.Mmap(-1, 0, ring+slotCount*w.link.slotSize(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("memory for frames: %w", err)
	}
	w.buffers = unsafe.Slice((*buffer)(unsafe.Pointer(&w.memory[0])), slotCount)
	w.slots = w.link.slots(w.memory[ring:])
	w.uring, w.burst, w.linked = u, Batch, w.link.mayRefuse()
	w.free, w.lent, w.again = make([]uint16, 0, slotCount), make([]uint16, 0, Batch), make([]int, 0, Batch)
	w.batch = make([][]byte, 0, Batch)
	if !w.single {
		if err := u.registerBuffers(uint16(w.index), w.buffers); err != nil {
			return err
		}
	}
	for i := range w.slots {
		w.giveBack(uint16(i))
	}
	return nil
}

// close lets go of everything; a frame that is not written by then is lost to an interface that is.
func (w *way) close() {
	w.giveUp()
	for _, fd := range []int{w.in, w.out} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if w.memory != nil {
		unix.Munmap(w.memory)
	}
}

// giveBack lets a slot be read into again.
func (w *way) giveBack(slot uint16) {
	if w.single {
		w.free = append(w.free, slot)
		return
	}
	room := w.slots[slot][head:]
	b := &w.buffers[w.provided%slotCount]
	b.address, b.length, b.number = addressOf(room), uint32(len(room)), slot
	w.provided++
	last := struct{ number, tail uint16 }{w.buffers[0].number, w.provided}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.buffers[0].number)), *(*uint32)(unsafe.Pointer(&last)))
}

// queueReads has frames read into the slots that are free, by one entry that goes on for as long as
// there are any, or by a batch of them where the kernel has no such entry.
func (w *way) queueReads() {
	switch {
	case w.reads > 0 || w.polling || w.pause > 0:
	case w.single && w.dry:
		w.dry, w.polling = false, true
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opPollAdd, int32(w.in), unix.POLLIN, tag(ofPoll, w.index, 0)
	case w.single:
		w.queueSingles()
	case w.filled+len(w.lent) < slotCount:
		s := w.uring.submit()
		s.op, s.fd, s.data = opReadMultishot, int32(w.in), tag(ofRead, w.index, 0)
		s.flags, s.buffers = sqeBufferSelect, uint16(w.index)
		w.reads = 1
	}
}

// queueSingles submits more reads the more frames came last time, for each that finds none costs too.
func (w *way) queueSingles() {
	for w.reads < w.burst && len(w.free) > 0 {
		slot := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		room := w.slots[slot][head:]
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opRead, int32(w.in), unix.RWF_NOWAIT, tag(ofRead, w.index, int(slot))
		s.address, s.length = addressOf(room), uint32(len(room))
		w.reads++
	}
	w.burst = min(2*w.burst, Batch)
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// haveRead takes the completion of a read.
func (w *way) haveRead(c completion, index int) error {
	if w.single || c.flags&cqeMore == 0 {
		w.reads--
	}
	if c.result < 0 {
		return w.haveNotRead(unix.Errno(-c.result), index)
	}
	slot, n, l := uint16(index), int(c.result), w.link
	if !w.single {
		slot = uint16(c.flags >> cqeBufferBit)
	}
	if n > l.room {
		l.tally.Oversize++
		w.giveBack(slot)
		return nil
	}
	l.tally.In++
	l.tally.InBytes += uint64(n)
	w.frames[slot] = w.slots[slot][head : head+n]
	w.line[(w.first+w.filled)%slotCount] = slot
	w.filled++
	return nil
}

func (w *way) haveNotRead(errno unix.Errno, index int) error {
	if w.single {
		w.giveBack(uint16(index))
	}
	switch errno {
	case unix.EAGAIN:
		w.dry, w.burst = true, leastBurst
	case unix.ENOBUFS, unix.ECANCELED, unix.EINTR: // no free slot; by cancelReads
	default:
		return w.link.from.failed("read from", errno)
	}
	return nil
}

// handOut returns the next batch, unless the one before is still to be written.
func (w *way) handOut() [][]byte {
	if len(w.rest) > 0 {
		return nil
	}
	for _, slot := range w.lent {
		w.giveBack(slot)
	}
	w.lent, w.batch = w.lent[:0], w.batch[:0]
	for w.filled > 0 && len(w.batch) < Batch {
		slot := w.line[w.first]
		w.first = (w.first + 1) % slotCount
		w.filled--
		w.lent = append(w.lent, slot)
		w.batch = append(w.batch, w.frames[slot])
	}
	w.link.taken += len(w.batch)
	return w.batch
}

// queueWrites has up to a batch of frames written, and returns how many batches are under way.
// Successes are silent but for the last frame's. Where the receiver may refuse a frame the entries
// wait for each other, so that none is written behind one that was not; the kernel then takes a fifth
// longer.
func (w *way) queueWrites() int {
	if len(w.rest) == 0 || w.pausing() > 0 {
		return 0
	}
	if w.writing > 0 {
		return 1
	}
	w.writing = min(len(w.rest), Batch)
	flags := uint8(sqeSkipIfSuccess)
	if w.linked {
		flags |= sqeLink
	}
	for i, f := range w.rest[:w.writing] {
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opWrite, int32(w.out), unix.RWF_NOWAIT, tag(ofWrite, w.index, i)
		s.address, s.length = addressOf(f), uint32(len(f))
		if i < w.writing-1 {
			s.flags = flags
		}
	}
	return 1
}

// pausing returns how long it still is until what was refused is tried again.
func (w *way) pausing() time.Duration {
	if w.pause == 0 {
		return 0
	}
	return max(time.Until(w.until), 0)
}

// haveWritten takes the completion of a write: the last one's, or one that failed. Links end at the
// first that fails, and the frames behind it are written next. Without links a frame that is refused
// after all, for want of memory, is written once more behind its batch.
func (w *way) haveWritten(c completion, index int) error {
	var err, failure error
	if c.result < 0 {
		err = unix.Errno(-c.result)
	}
	switch {
	case err == nil:
	case w.link.lose(err):
		w.lost++
		w.lostBytes += len(w.rest[index])
	case refused(err), err == unix.EINTR:
		w.again = append(w.again, index)
	default:
		w.dead, failure = true, w.link.to.failed("write to", err)
		w.link.tally.HostDown++
		w.lost++
		w.lostBytes += len(w.rest[index])
	}
	if w.linked || index == w.writing-1 {
		w.written(index + 1)
	}
	return failure
}

// written ends a batch, of which so many frames were tried.
func (w *way) written(tried int) {
	t, again := &w.link.tally, len(w.again)
	bytes := -w.lostBytes
	for _, f := range w.rest[:tried] {
		bytes += len(f)
	}
	for i := again - 1; i >= 0; i-- {
		f := w.rest[w.again[i]]
		bytes -= len(f)
		if at := tried - again + i; at > w.again[i] {
			w.rest[at] = f
		}
	}
	t.Out += uint64(tried - w.lost - again)
	t.OutBytes += uint64(bytes)
	w.rest = w.rest[tried-again:]
	w.writing, w.lost, w.lostBytes, w.again = 0, 0, 0, w.again[:0]
	if again == 0 {
		w.pause = 0
		return
	}
	t.Retries++
	w.linked = true
	w.pause = min(max(2*w.pause, firstPause), longestPause)
	w.until = time.Now().Add(w.pause)
}

// giveUp counts what will not be written.
func (w *way) giveUp() {
	w.link.tally.HostDown += uint64(len(w.rest) + w.filled)
	w.rest, w.filled = nil, 0
}

// end gives up what cannot be written, or is refused just now, and tells whether nothing is left.
func (w *way) end() bool {
	if w.writing == 0 && (w.dead || w.pause > 0) {
		w.giveUp()
	}
	return w.reads == 0 && !w.polling && w.filled == 0 && len(w.rest) == 0
}

// remains tells whether both interfaces are there, and their devices open.
func (w *way) remains() error {
	if err := w.link.from.remains(w.link.source); err != nil {
		return err
	}
	return w.link.to.remains(w.link.target)
}
