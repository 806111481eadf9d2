package tap

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const blockBytes = 64 << 10 // of each piece of a ring that the kernel takes from its memory at once

// socketRing is memory that a packet socket shares with the kernel (packet_mmap, TPACKET_V2): blocks, each
// cut into slots, none of which crosses from one block to the next. A slot is named by where it begins.
type socketRing struct {
	memory []byte
	size   int // bytes of a slot
	block  int // bytes of a block, a power of two
	count  int // slots
}

// newSocketRing makes a ring of about so many bytes, and two blocks at least. The option says which way.
func newSocketRing(fd, option, size, bytes int) (r socketRing, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return r, err
	}
	block := blockBytes
	for block < size {
		block *= 2
	}
	blocks := max(bytes/block, 2)
	r = socketRing{size: size, block: block, count: block / size * blocks}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, option, &unix.TpacketReq{Block_size: uint32(block),
		Block_nr: uint32(blocks), Frame_size: uint32(size), Frame_nr: uint32(r.count)}); err != nil {
		return r, err
	}
	r.memory, err = unix.Mmap(fd, 0, block*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

// slot returns a slot's memory.
func (r *socketRing) slot(at int) []byte { return r.memory[at : at+r.size : at+r.size] }

// after returns the slot behind one; behind the last is the first.
func (r *socketRing) after(at int) int {
	at += r.size
	if at&(r.block-1)+r.size > r.block {
		at = (at | (r.block - 1)) + 1
	}
	if at == len(r.memory) {
		return 0
	}
	return at
}

// statusOf is a slot's first field, by which program and kernel pass it to each other.
func statusOf(slot []byte) *uint32 { return (*uint32)(unsafe.Pointer(unsafe.SliceData(slot))) }

func loadStatus(slot []byte) uint32 { return atomic.LoadUint32(statusOf(slot)) }

func storeStatus(slot []byte, status uint32) { atomic.StoreUint32(statusOf(slot), status) }
