package tap

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	xdpMemory  = 16 << 20 // of frames that are received
	xdpSending = 1 << 10  // frames that may be on their way out, of all queues together
	xdpLeast   = 1 << 8   // of each
	xdpBurst   = 32       // frames that the kernel takes in one call
	xdpChunk   = 2048     // of a frame, or twice as much where the interface's are longer

	linkLength = addresses + 2
	xdpHead    = unix.XDP_PACKET_HEADROOM // the kernel's own, in front of a frame that came
	xdpLongest = 2*xdpChunk - xdpHead     // of a frame that comes
)

// xdpSockets are AF_XDP on the first queue of an interface (kernel, networking/af_xdp.rst): memory in chunks
// that this program and the kernel pass to each other through rings and, where frames are received, a BPF
// program that puts every frame of the interface's first receive queue into it. It runs in the interface's
// driver or, if that runs none, in front of the network stack. Copy mode: the kernel copies each frame in and
// out.
//
//	fill        chunks for the kernel    ->  received    those that it has filled
//	transmit    chunks to be sent        ->  completed   those that it has sent
//
// Memory, fill and completed there are once; received and transmit once for each of the device's queues, in
// sockets that share the memory. A queue has two, one for each way, since on a socket that can send, waiting for
// frames also sends. Each queue sends by chunks of its own. What the kernel has sent for one, another may be the
// first to see.
//
// They belong to their device, all or none. The last holder closes them, which takes the program off the
// interface, as does any end of the process.
type xdpSockets struct {
	name     string
	queues   []*xdpSocket
	memory   []byte
	chunk    int // bytes
	first    int // chunk that is sent by; those before it receive
	each     int // chunks that a queue sends by
	redirect *xdpRedirect
	holders  atomic.Int32
	tooLong  atomic.Uint64 // frames that no chunk had room for and that are not counted yet

	mutex     sync.Mutex // guards the rest, and what each queue's socket has of it
	fill      xdpQueue[uint64]
	completed xdpQueue[uint64]
	told      unix.XDPStatistics
}

// newXDPSockets opens what frames leave an interface by, and where it receives takes the interface's frames.
// It is called in the interface's namespace, with a packet socket.
func newXDPSockets(packets *os.File, room, queues int, receives bool) (x *xdpSockets, err error) {
	x = &xdpSockets{name: packets.Name(), chunk: xdpChunk}
	x.holders.Store(1)
	defer func() {
		if err != nil {
			err = errors.Join(err, x.release())
		}
	}()
	var index, mtu int
	if err := control(packets, func(fd int) (err error) {
		if index, err = boundIndex(fd); err == nil {
			mtu, err = mtuOf(fd)
		}
		return err
	}); err != nil {
		return x, fmt.Errorf("MTU of %s: %w", x.name, err)
	}
	limit := mtuLimit(mtu + linkLength)
	if limit > xdpLongest && receives {
		return x, explained{fmt.Errorf("%s has an MTU of %d, and AF_XDP takes frames of %d bytes: lower it, or choose ring", x.name, mtu, xdpLongest)}
	}
	if min(room, mtu+linkHeader) > xdpChunk-xdpHead { // what goes after a frame is not the kernel's
		x.chunk = 2 * xdpChunk
	}
	for queue := range queues {
		x.queues = append(x.queues, &xdpSocket{xdpSockets: x, queue: queue, in: -1, out: -1, limit: limit})
	}
	if err = x.open(index, receives); err == nil && receives {
		x.redirect, err = redirectTo(x.receivers(), index)
	}
	return x, explainXDP(x.name, err)
}

// receivers are the sockets that frames come by.
func (x *xdpSockets) receivers() (all []int) {
	for _, q := range x.queues {
		all = append(all, q.in)
	}
	return all
}

// open makes the memory, the sockets and the rings. Of a memory both rings to fill and completed are wanted,
// also where nothing is received.
func (x *xdpSockets) open(index int, receives bool) (err error) {
	coming, filling := 0, 1
	if receives {
		coming = xdpMemory / x.chunk
		filling = coming
	}
	x.first, x.each = coming, max(xdpSending/len(x.queues), xdpLeast)
	sending := x.each * len(x.queues)
	x.memory, err = unix.Mmap(-1, 0, (coming+sending)*x.chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for _, q := range x.queues {
		if err := q.open(coming/len(x.queues), receives); err != nil {
			return err
		}
	}
	owner := x.queues[0].out
	if receives {
		owner = x.queues[0].in
	}
	memory := unix.XDPUmemReg{Addr: addressOf(x.memory), Len: uint64(len(x.memory)), Size: uint32(x.chunk)}
	if err := errors.Join(setXDPOption(owner, unix.XDP_UMEM_REG, &memory),
		x.fill.open(owner, unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_PGOFF_FILL_RING, filling),
		x.completed.open(owner, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_UMEM_PGOFF_COMPLETION_RING, 1<<bits.Len(uint(sending-1)))); err != nil {
		return err
	}
	for i := range coming {
		x.fill.produce(uint64(i * x.chunk))
	}
	x.fill.publish()
	return x.bind(owner, index)
}

// bind begins with the owner of the memory, which the others then share.
func (x *xdpSockets) bind(owner, index int) error {
	flags := uint16(unix.XDP_COPY)
	if owner == x.queues[0].in {
		flags |= unix.XDP_USE_NEED_WAKEUP
	}
	if err := unix.Bind(owner, &unix.SockaddrXDP{Flags: flags, Ifindex: uint32(index)}); err != nil {
		return err
	}
	for _, q := range x.queues {
		for _, fd := range []int{q.in, q.out} {
			if fd < 0 || fd == owner {
				continue
			}
			if err := unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(index), SharedUmemFD: uint32(owner)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// why says in a sentence how the frames come.
func (x *xdpSockets) why() string {
	where := "in front of the network stack"
	if x.redirect.native {
		where = "in its driver"
	}
	return fmt.Sprintf("%s is attached, and a program %s takes its frames for AF_XDP", x.name, where)
}

// again is hold for somebody who does not know whether they are still open. It reports whether they are.
func (x *xdpSockets) again() bool {
	for {
		n := x.holders.Load()
		if n == 0 {
			return false
		}
		if x.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// hold keeps the sockets, which somebody else holds, open until release.
func (x *xdpSockets) hold() { x.holders.Add(1) }

func (x *xdpSockets) release() error {
	if x.holders.Add(-1) > 0 {
		return nil
	}
	err := x.redirect.close() // first, so that no frame is sent to nobody
	memory := [][]byte{x.fill.memory, x.completed.memory, x.memory}
	for _, q := range x.queues {
		memory = append(memory, q.received.memory, q.transmit.memory)
		for _, fd := range []int{q.out, q.in} {
			if fd >= 0 {
				err = errors.Join(err, unix.Close(fd))
			}
		}
	}
	for _, m := range memory {
		if m != nil {
			err = errors.Join(err, unix.Munmap(m))
		}
	}
	return err
}

// collect adds to a queue's free chunks those of its own that the kernel has sent, and keeps the others' for
// them.
func (x *xdpSockets) collect(q *xdpSocket) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	for range x.completed.waiting() {
		chunk := x.completed.consume()
		of := x.queues[(int(chunk)/x.chunk-x.first)/x.each]
		of.sent = append(of.sent, chunk)
	}
	x.completed.release()
	q.free = append(q.free, q.sent...)
	q.sent = q.sent[:0]
}

// account takes over what the kernel has counted since anyone last asked: it returns how many frames found
// no chunk, and keeps the number of those longer than a chunk. Each socket counts for itself, but that the
// ring to fill was empty all together.
func (x *xdpSockets) account() (lost uint64, err error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	var now unix.XDPStatistics
	for _, q := range x.queues {
		var one unix.XDPStatistics
		if err := xdpOption(q.in, unix.XDP_STATISTICS, &one); err != nil {
			return 0, err
		}
		now.Rx_dropped += one.Rx_dropped
		now.Rx_ring_full += one.Rx_ring_full
		now.Rx_fill_ring_empty_descs = one.Rx_fill_ring_empty_descs
	}
	dropped := now.Rx_dropped - x.told.Rx_dropped
	empty := min(now.Rx_fill_ring_empty_descs-x.told.Rx_fill_ring_empty_descs, dropped)
	x.tooLong.Add(dropped - empty)
	lost = empty + now.Rx_ring_full - x.told.Rx_ring_full
	x.told = now
	return lost, nil
}
