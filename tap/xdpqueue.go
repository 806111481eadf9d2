package tap

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xdpQueue is one of the rings: entries that one side produces and the other consumes, by numbers that
// only grow. Each side writes its own number alone.
type xdpQueue[T uint64 | unix.XDPDesc] struct {
	memory             []byte
	producer, consumer *uint32
	entries            []T
	at                 uint32 // what the program produces, or consumes, next
}

// open asks for a ring of that many entries, a power of two, and maps it from the offset that stands for
// it.
func (q *xdpQueue[T]) open(fd, option int, page int64, size int) (err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, option, size); err != nil {
		return err
	}
	var all unix.XDPMmapOffsets
	if err := xdpOption(fd, unix.XDP_MMAP_OFFSETS, &all); err != nil {
		return err
	}
	offsets := map[int]unix.XDPRingOffset{unix.XDP_UMEM_FILL_RING: all.Fr, unix.XDP_UMEM_COMPLETION_RING: all.Cr,
		unix.XDP_RX_RING: all.Rx, unix.XDP_TX_RING: all.Tx}[option]
	var entry T
	length := int(offsets.Desc) + size*int(unsafe.Sizeof(entry))
	if q.memory, err = unix.Mmap(fd, page, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	q.producer = (*uint32)(unsafe.Pointer(&q.memory[offsets.Producer]))
	q.consumer = (*uint32)(unsafe.Pointer(&q.memory[offsets.Consumer]))
	q.entries = unsafe.Slice((*T)(unsafe.Pointer(&q.memory[offsets.Desc])), size)
	return nil
}

// entry returns the entry of a number.
func (q *xdpQueue[T]) entry(number uint32) *T { return &q.entries[number&uint32(len(q.entries)-1)] }

// produce adds an entry, for which there must be room; the kernel sees it after publish.
func (q *xdpQueue[T]) produce(value T) {
	*q.entry(q.at) = value
	q.at++
}

func (q *xdpQueue[T]) publish() { atomic.StoreUint32(q.producer, q.at) }

// taken is the number up to which the kernel has consumed entries.
func (q *xdpQueue[T]) taken() uint32 { return atomic.LoadUint32(q.consumer) }

// waiting is how many entries the kernel has produced that are not consumed.
func (q *xdpQueue[T]) waiting() uint32 { return atomic.LoadUint32(q.producer) - q.at }

// consume takes the next entry, which must be there; release gives its place back to the kernel.
func (q *xdpQueue[T]) consume() T {
	value := *q.entry(q.at)
	q.at++
	return value
}

func (q *xdpQueue[T]) release() { atomic.StoreUint32(q.consumer, q.at) }

// setXDPOption hands a structure to the kernel.
func setXDPOption[T any](fd, option int, value *T) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(unsafe.Pointer(value)), unsafe.Sizeof(*value), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// xdpOption has the kernel fill a structure.
func xdpOption[T any](fd, option int, value *T) error {
	size := uint32(unsafe.Sizeof(*value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(unsafe.Pointer(value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
