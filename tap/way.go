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

	batch   [][]byte    // handed out
	rest    [][]byte    // still to be written
	stride  int         // how many of them to write at once
	writing int         // how many are under way
	limited func() bool // whether they are to wait for each other
	linked  bool        // and whether they do
	limit   int32       // of the send buffer, as the kernel said last
	lost    int         // of those under way
	again   [][]byte    // of those under way, to be written once more
	pause   time.Duration
	until   time.Time // when what was refused is tried again
	dead    bool      // nothing can be written any more
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
	w.uring, w.burst, w.stride, w.limited = u, Batch, Batch, w.mayRefuse
	w.free, w.lent = make([]uint16, 0, slotCount), make([]uint16, 0, Batch)
	w.batch, w.again = make([][]byte, 0, Batch), make([][]byte, 0, Batch)
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

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

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
