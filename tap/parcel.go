package tap

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

// parcel is what one write takes to an interface: a frame, or several that are merged.
type parcel struct {
	parts  []unix.Iovec
	length int      // of the parts, in bytes
	frames [][]byte // those it stands for, of which none is longer than the first
	bytes  int      // of those, as on a wire
}

// packer makes parcels of a direction's frames. Parcels are valid until it makes the next ones, and
// point to the frames.
type packer struct {
	virtio  bool            // each begins with a virtio header
	merger  *segment.Merger // nil: none are merged
	parcels []parcel
	parts   []unix.Iovec
	heads   []byte // headers of what was merged
}

func newPacker(to *Device) packer {
	p := packer{virtio: to.virtio}
	if to.merging&GRO != 0 {
		p.merger = &segment.Merger{NoUDP: !to.takesUDP}
	}
	return p
}

// noVirtio is the virtio header of a frame that is not merged.
var noVirtio [virtioLen]byte

// pack makes parcels of frames, in order.
func (p *packer) pack(frames [][]byte) []parcel {
	p.parcels, p.parts, p.heads = p.parcels[:0], p.parts[:0], p.heads[:0]
	for len(frames) > 0 {
		n := 1
		if p.merger != nil {
			n = p.merger.Merge(frames)
		}
		p.add(frames[:n])
		frames = frames[n:]
	}
	return p.parcels
}

// add makes one parcel. If the memory for parts or headers grows, earlier ones stay where they are.
func (p *packer) add(frames [][]byte) {
	from, one := len(p.parts), parcel{frames: frames}
	for _, f := range frames {
		one.bytes += len(f)
	}
	switch {
	case len(frames) > 1:
		at := len(p.heads)
		p.heads = p.merger.AppendHeaders(p.heads)
		p.part(&one, p.heads[at:])
		for _, f := range frames {
			p.part(&one, p.merger.Payload(f))
		}
	case p.virtio:
		p.part(&one, noVirtio[:])
		p.part(&one, frames[0])
	default:
		p.part(&one, frames[0])
	}
	one.parts = p.parts[from:len(p.parts):len(p.parts)]
	p.parcels = append(p.parcels, one)
}

func (p *packer) part(to *parcel, b []byte) {
	p.parts = append(p.parts, unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))})
	to.length += len(b)
}

// apart makes parcels of a frame each from others, for an interface that takes no merged frames, and merges none
// from now on.
func (p *packer) apart(parcels []parcel) []parcel {
	p.merger = nil
	var frames [][]byte
	for i := range parcels {
		frames = append(frames, parcels[i].frames...)
	}
	return p.pack(frames)
}

// framesOf is how many frames parcels stand for.
func framesOf(parcels []parcel) (frames uint64) {
	for i := range parcels {
		frames += uint64(len(parcels[i].frames))
	}
	return frames
}

// merged reports whether it stands for several frames.
func (p *parcel) merged() bool { return len(p.frames) > 1 }

// part is one of the parts.
func (p *parcel) part(i int) []byte { return unsafe.Slice(p.parts[i].Base, p.parts[i].Len) }

// copy copies the parts to one place, and returns how many bytes fitted.
func (p *parcel) copy(to []byte) (n int) {
	for i := range p.parts {
		n += copy(to[n:], p.part(i))
	}
	return n
}

// write writes a parcel with one call.
func (p *parcel) write(fd int) (n int, err error) {
	call := uintptr(unix.SYS_WRITEV)
	first, count := unsafe.Pointer(unsafe.SliceData(p.parts)), uintptr(len(p.parts))
	if len(p.parts) == 1 {
		call, first, count = unix.SYS_WRITE, unsafe.Pointer(p.parts[0].Base), uintptr(p.parts[0].Len)
	}
	wrote, _, errno := unix.Syscall(call, uintptr(fd), uintptr(first), count)
	if errno != 0 {
		return 0, errno
	}
	return int(wrote), nil
}
