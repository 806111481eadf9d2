package tap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slotCount is how many frames a direction's memory holds: a batch being written, and one being read. The
// kernel wants a power of two.
const slotCount = 2 * Batch

// ringPort is a direction's part in a ring, with descriptors of its own.
type ringPort struct {
	direction *Direction
	reader    reader
	writer    writer
	memory    []byte // buffers, then slots
}

// newRingPort prepares memory and descriptors. The port has to be closed even after an error.
func newRingPort(d *Direction, index int, u *uring, single bool) (p *ringPort, err error) {
	p = &ringPort{direction: d}
	p.reader = reader{direction: d, uring: u, index: index, fd: -1, lent: make([]uint16, 0, Batch), batch: make([][]byte, 0, Batch)}
	p.writer = writer{direction: d, uring: u, index: index, fd: -1, stride: Batch}
	if p.reader.fd, err = duplicate(d.source); err != nil {
		return p, d.from.failed("read from", err)
	}
	if p.writer.fd, err = duplicate(d.target); err != nil {
		return p, d.to.failed("write to", err)
	}
	const ring = slotCount * int(unsafe.Sizeof(buffer{})) // whole pages, at the start
	p.memory, err = unix.Mmap(-1, 0, ring+slotCount*d.slotSize(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return p, fmt.Errorf("memory for frames: %w", err)
	}
	p.reader.slots = d.slots(p.memory[ring:])
	if p.reader.prefix = d.from.prefix(); d.from.virtio {
		p.reader.cut = newCutting(d)
	}
	if single {
		p.reader.feed = &singles{reader: &p.reader, burst: Batch, free: make([]uint16, 0, slotCount)}
	} else {
		m := newMultishot(&p.reader, unsafe.Slice((*buffer)(unsafe.Pointer(&p.memory[0])), slotCount))
		if err := u.registerBuffers(uint16(index), m.buffers); err != nil {
			return p, err
		}
		p.reader.feed = m
	}
	for slot := range p.reader.slots {
		p.reader.feed.give(uint16(slot))
	}
	return p, nil
}

// underWay reports whether the kernel may still read or write memory of the port.
func (p *ringPort) underWay() bool {
	return p.writer.open > 0 || p.reader.feed != nil && p.reader.feed.underWay()
}

// end gives up what cannot be written or is refused now, and reports whether nothing is left.
func (p *ringPort) end() bool {
	if w := &p.writer; w.open == 0 && (w.dead || w.refusal.pause > 0) {
		p.giveUp()
	}
	return !p.underWay() && !p.reader.pending() && len(p.writer.rest) == 0
}

// giveUp counts what will not be written.
func (p *ringPort) giveUp() {
	p.direction.tally.HostDown += uint64(p.writer.left() + p.reader.discard())
	p.writer.rest, p.writer.queued = nil, 0
	p.writer.refusal = refusal{}
}

// close releases everything; frames not yet written count as lost with the interface. Memory that the
// kernel may still use stays for as long as the process lives.
func (p *ringPort) close() {
	if p.underWay() {
		abandon(p.memory, p.writer.rest)
		p.memory = nil
	}
	p.giveUp()
	for _, fd := range []int{p.reader.fd, p.writer.fd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if p.memory != nil {
		unix.Munmap(p.memory)
	}
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
