package tap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	xdpMemory  = 16 << 20 // of frames that are received
	xdpSending = 1 << 10  // frames that may be on their way out, a power of two
	xdpBurst   = 32       // frames that the kernel takes in one call
	xdpChunk   = 2048     // of a frame, or twice as much where the interface's are longer

	linkLength = addresses + 2
	xdpHead    = unix.XDP_PACKET_HEADROOM // the kernel's own, in front of a frame that came
	xdpLongest = 2*xdpChunk - xdpHead     // of a frame that comes
)

// xdpSocket is AF_XDP on the first receive queue of an interface (kernel, networking/af_xdp.rst): memory
// in chunks that this program and the kernel pass to each other through four rings, and a BPF program that
// puts every frame of that queue into it. It runs in the interface's driver or, if that runs none, in
// front of the network stack. Copy mode: the kernel copies each frame in and out.
//
//	fill        chunks for the kernel    ->  received    those that it has filled
//	transmit    chunks to be sent        ->  completed   those that it has sent
//
// Two sockets share the memory, one for each way, since on a socket that can send, waiting for frames also
// sends. The first two rings belong to the goroutine that receives, the others to the one that sends.
//
// Like a packetRing it belongs to its device. The last holder closes it, which takes the program off the
// interface, as does any end of the process.
type xdpSocket struct {
	name      string
	in, out   int
	memory    []byte
	chunk     int
	fill      xdpQueue[uint64]
	received  xdpQueue[unix.XDPDesc]
	lent      uint32 // chunks received that are not given back
	transmit  xdpQueue[unix.XDPDesc]
	taken     uint32 // up to which the kernel has taken chunks off it
	completed xdpQueue[uint64]
	free      []uint64 // chunks to send by
	long      together // sends what no chunk has room for
	limit     mtuLimit // when last asked for
	redirect  *xdpRedirect
	holders   atomic.Int32

	mutex   sync.Mutex // guards told
	told    unix.XDPStatistics
	tooLong atomic.Uint64 // frames that no chunk had room for and that are not counted yet
}

// newXDPSocket opens what frames leave an interface by, and where it receives takes the interface's frames.
// It is called in the interface's namespace, with a packet socket.
func newXDPSocket(packets *os.File, room int, receives bool) (x *xdpSocket, err error) {
	x = &xdpSocket{name: packets.Name(), in: -1, out: -1, chunk: xdpChunk}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.release())
		}
	}()
	x.holders.Store(1)
	var index, mtu int
	if err := control(packets, func(fd int) (err error) {
		if index, err = boundIndex(fd); err == nil {
			mtu, err = mtuOf(fd)
		}
		return err
	}); err != nil {
		return x, fmt.Errorf("MTU of %s: %w", x.name, err)
	}
	if x.limit = mtuLimit(mtu + linkLength); x.limit > xdpLongest && receives {
		return x, fmt.Errorf("%s has an MTU of %d, and AF_XDP takes frames of %d bytes: lower it, or choose ring", x.name, mtu, xdpLongest)
	}
	if min(room, mtu+linkHeader) > xdpChunk-xdpHead { // what goes after a frame is not the kernel's
		x.chunk = 2 * xdpChunk
	}
	if err = x.open(index, receives); err == nil && receives {
		x.redirect, err = redirectTo(x.in, index)
	}
	return x, explainXDP(x.name, err)
}

// open makes the memory, the sockets and the rings. Of a memory both rings to fill and completed are wanted,
// also where nothing is received.
func (x *xdpSocket) open(index int, receives bool) (err error) {
	coming, filling, sockets := 0, 1, []*int{&x.out}
	if receives {
		coming, sockets = xdpMemory/x.chunk, []*int{&x.in, &x.out}
		filling = coming
	}
	x.memory, err = unix.Mmap(-1, 0, (coming+xdpSending)*x.chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for _, fd := range sockets {
		if *fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
	}
	first := *sockets[0]
	memory := unix.XDPUmemReg{Addr: addressOf(x.memory), Len: uint64(len(x.memory)), Size: uint32(x.chunk)}
	if err := errors.Join(setXDPOption(first, unix.XDP_UMEM_REG, &memory),
		x.fill.open(first, unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_PGOFF_FILL_RING, filling),
		x.completed.open(first, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_UMEM_PGOFF_COMPLETION_RING, xdpSending),
		x.transmit.open(x.out, unix.XDP_TX_RING, unix.XDP_PGOFF_TX_RING, xdpSending)); err != nil {
		return err
	}
	for i := range xdpSending {
		x.free = append(x.free, uint64((coming+i)*x.chunk))
	}
	if !receives {
		return unix.Bind(x.out, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index)})
	}
	if err := x.received.open(x.in, unix.XDP_RX_RING, unix.XDP_PGOFF_RX_RING, coming); err != nil {
		return err
	}
	for i := range coming {
		x.fill.produce(uint64(i * x.chunk))
	}
	x.fill.publish()
	if err := unix.Bind(x.in, &unix.SockaddrXDP{Flags: unix.XDP_COPY | unix.XDP_USE_NEED_WAKEUP, Ifindex: uint32(index)}); err != nil {
		return err
	}
	return unix.Bind(x.out, &unix.SockaddrXDP{Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(index), SharedUmemFD: uint32(x.in)})
}

// why says in a sentence how the frames come.
func (x *xdpSocket) why() string {
	where := "in front of the network stack"
	if x.redirect.native {
		where = "in its driver"
	}
	return fmt.Sprintf("%s is attached, and a program %s takes its frames for AF_XDP", x.name, where)
}

// hold keeps the sockets open until release.
func (x *xdpSocket) hold() { x.holders.Add(1) }

func (x *xdpSocket) release() error {
	if x.holders.Add(-1) > 0 {
		return nil
	}
	err := x.redirect.close() // first, so that no frame is sent to nobody
	for _, fd := range []int{x.out, x.in} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	for _, memory := range [][]byte{x.fill.memory, x.completed.memory, x.received.memory, x.transmit.memory, x.memory} {
		if memory != nil {
			err = errors.Join(err, unix.Munmap(memory))
		}
	}
	return err
}

// ready reports whether a frame has come.
func (x *xdpSocket) ready() bool { return x.received.waiting() > 0 }

// take lends the next frame. One that is not in the memory is an error.
func (x *xdpSocket) take() (arrival, error) {
	d := x.received.consume()
	x.lent++
	at, size := d.Addr&uint64(x.chunk-1), uint64(d.Len)
	base := d.Addr - at
	if base >= uint64(len(x.memory)) || at+size > uint64(x.chunk) {
		return arrival{}, fmt.Errorf("AF_XDP has a frame of %d bytes at %#x, of chunks with %d", size, d.Addr, x.chunk)
	}
	slot := x.memory[base : base+uint64(x.chunk) : base+uint64(x.chunk)]
	return arrival{slot: slot, begin: int(at), end: int(at + size), length: int(size), bare: true}, nil
}

// giveBack lets the kernel fill what was lent.
func (x *xdpSocket) giveBack() {
	if x.lent == 0 {
		return
	}
	for i := x.received.at - x.lent; i != x.received.at; i++ {
		x.fill.produce(x.received.entry(i).Addr &^ uint64(x.chunk-1))
	}
	x.lent = 0
	x.received.release()
	x.fill.publish()
}

// put sends parcels with one call; only in that does the kernel take chunks off the ring. Chunks that it
// left there it may have looked at, so they stay, and the next call, whose first parcels are the same,
// writes them anew. It stops before a parcel longer than the MTU allows. Each parcel is a frame: nothing
// leaves an attached interface merged. Those that no chunk has room for leave by the packet socket, which
// passes the queueing discipline by as well.
//
// A frame that the interface threw away is off the ring, which the kernel does not always show: EBUSY. The
// caller gets ENOBUFS, as a packet socket would say. While the interface is down the kernel looks at
// nothing, but what it had looked at by then waits until it is up.
func (x *xdpSocket) put(fd int, parcels []parcel) (int, error) {
	for range x.completed.waiting() {
		x.free = append(x.free, x.completed.consume())
	}
	x.completed.release()
	if n := x.beyond(parcels); n > 0 {
		n, err := x.long.put(fd, parcels[:n])
		if err == unix.ENOBUFS {
			err = x.thrownAway(fd, &parcels[n])
		}
		return n, err
	}
	left := x.transmit.at - x.taken
	n, err := x.stage(fd, parcels[:min(len(parcels), xdpBurst)])
	if n == 0 {
		return 0, err
	}
	x.transmit.publish()
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(x.out), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	taken := int(x.transmit.taken() - x.taken)
	if errno == unix.EBUSY {
		taken = max(taken, 1)
	}
	x.taken += uint32(taken)
	taken = min(taken, n)
	switch {
	case errno == unix.EBUSY:
		return taken - 1, x.thrownAway(fd, &parcels[taken-1])
	case errno == unix.ENETDOWN && taken == 0 && left == 0:
		x.unstage()
		return 0, errno
	case errno == unix.ENXIO:
		return taken, errno
	case taken < n:
		return taken, unix.EAGAIN
	}
	return n, nil
}

// beyond is how many parcels from the first on no chunk has room for.
func (x *xdpSocket) beyond(parcels []parcel) (n int) {
	for n < len(parcels) && parcels[n].length > x.chunk {
		n++
	}
	return n
}

// stage copies parcels into chunks, until there are no more chunks or a parcel is too long. It uses the
// chunks left on the ring first.
func (x *xdpSocket) stage(fd int, parcels []parcel) (int, error) {
	for i := range parcels {
		p := &parcels[i]
		if p.length > x.chunk {
			return i, nil
		}
		if at := x.taken + uint32(i); at != x.transmit.at {
			d := x.transmit.entry(at)
			d.Len = uint32(p.copy(x.memory[d.Addr:]))
			continue
		}
		if len(x.free) == 0 {
			return i, unix.EAGAIN
		}
		if !x.limit.allows(p) && !x.fitsNow(fd, p) {
			return i, unix.EMSGSIZE
		}
		last := len(x.free) - 1
		chunk := x.free[last]
		x.free = x.free[:last]
		x.transmit.produce(unix.XDPDesc{Addr: chunk, Len: uint32(p.copy(x.memory[chunk:]))})
	}
	return len(parcels), nil
}

// unstage takes everything back off the ring, which the kernel has not looked at.
func (x *xdpSocket) unstage() {
	for x.transmit.at != x.taken {
		x.transmit.at--
		x.free = append(x.free, x.transmit.entry(x.transmit.at).Addr)
	}
	x.transmit.publish()
}

// fitsNow reports whether the interface takes a frame of this length, after another look at its MTU. A deleted interface shows at the next call.
func (x *xdpSocket) fitsNow(fd int, p *parcel) bool {
	if mtu, err := mtuOf(fd); err == nil {
		x.limit = mtuLimit(mtu + linkLength)
	}
	return x.limit.allows(p)
}

// thrownAway says why the interface did not take a frame. One without a carrier is down.
func (x *xdpSocket) thrownAway(fd int, p *parcel) error {
	switch {
	case !x.fitsNow(fd, p):
		return unix.EMSGSIZE
	case !running(fd):
		return unix.ENETDOWN
	}
	return unix.ENOBUFS
}

// account takes over what the kernel has counted since anyone last asked: it returns how many frames found
// no chunk, and keeps the number of those longer than a chunk.
func (x *xdpSocket) account() (lost uint64, err error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	now := x.told
	if err := xdpOption(x.in, unix.XDP_STATISTICS, &now); err != nil {
		return 0, err
	}
	dropped := now.Rx_dropped - x.told.Rx_dropped
	empty := min(now.Rx_fill_ring_empty_descs-x.told.Rx_fill_ring_empty_descs, dropped)
	x.tooLong.Add(dropped - empty)
	lost = empty + now.Rx_ring_full - x.told.Rx_ring_full
	x.told = now
	return lost, nil
}

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
