package tap

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// xdpSocket is what one queue has of its device's xdpSockets. What is received belongs to the goroutine that
// receives, what is sent to the one that sends.
type xdpSocket struct {
	*xdpSockets
	queue    int
	in, out  int
	received xdpQueue[unix.XDPDesc]
	lent     uint32 // chunks received that are not given back
	transmit xdpQueue[unix.XDPDesc]
	taken    uint32   // up to which the kernel has taken chunks off it
	free     []uint64 // chunks to send by
	sent     []uint64 // chunks of its own that came back, not yet free; guarded by mutex
	long     together // sends what no chunk has room for
	limit    mtuLimit // when last asked for
}

// open makes the sockets and their rings: one for as many frames that come, if any do, and one for its chunks.
func (x *xdpSocket) open(coming int, receives bool) (err error) {
	if x.out, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := x.transmit.open(x.out, unix.XDP_TX_RING, unix.XDP_PGOFF_TX_RING, 1<<bits.Len(uint(x.each-1))); err != nil {
		return err
	}
	x.free, x.sent = make([]uint64, 0, x.each), make([]uint64, 0, x.each)
	for i := range x.each {
		x.free = append(x.free, uint64((x.first+x.queue*x.each+i)*x.chunk))
	}
	if !receives {
		return nil
	}
	if x.in, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return x.received.open(x.in, unix.XDP_RX_RING, unix.XDP_PGOFF_RX_RING, 1<<(bits.Len(uint(coming))-1))
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
	x.mutex.Lock()
	defer x.mutex.Unlock()
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
// leaves by AF_XDP merged. Those that no chunk has room for leave by the packet socket, which
// passes the queueing discipline by as well.
//
// A frame that the interface threw away is off the ring, which the kernel does not always show: EBUSY. The
// caller gets ENOBUFS, as a packet socket would say. While the interface is down the kernel looks at
// nothing, but what it had looked at by then waits until it is up.
func (x *xdpSocket) put(fd int, parcels []parcel) (int, error) {
	x.collect(x)
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
