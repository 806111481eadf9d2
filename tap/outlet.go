package tap

import (
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

// outlet writes the frames of one direction in order, for an engine whose send returns once all are written.
// A refused frame is tried again, and the others wait behind it.
type outlet struct {
	pulse
	direction *Direction
	sink      sink
	rest      []parcel // still to be sent
	refusal   refusal  // of the first of them
	errno     error    // what ended drain
	stopped   atomic.Bool

	reach func(do func(fd uintptr)) error // runs do on the descriptor that is written to
	drain func(fd uintptr)                // made once: one made per call would be allocated
}

// sink writes frames to an interface.
type sink interface {
	// put writes parcels, the first one first, and returns how many. If it did not write all, it may return
	// why the next one was refused.
	put(fd int, parcels []parcel) (n int, err error)
}

func (o *outlet) send(_ *Direction, parcels []parcel) error {
	o.rest = parcels
	for {
		o.errno = nil
		if o.reach(o.drain) != nil {
			return o.giveUp(os.ErrClosed)
		}
		switch {
		case o.errno == nil:
			return nil
		case !refused(o.errno):
			return o.giveUp(o.errno)
		case o.stopped.Load():
			return o.giveUp(ErrStopped)
		}
		o.direction.public.store(&o.direction.tally)
		o.count.Add(1)
		time.Sleep(o.refusal.left())
	}
}

// giveUp counts the frames that will not be written.
func (o *outlet) giveUp(err error) error {
	o.direction.tally.HostDown += framesOf(o.rest)
	o.rest = nil
	return o.direction.to.failed("write to", err)
}

// write writes until a frame is refused, for now or for good.
func (o *outlet) write(fd uintptr) {
	d := o.direction
	for len(o.rest) > 0 {
		n, err := o.sink.put(int(fd), o.rest)
		for i := range o.rest[:n] {
			d.wrote(&o.rest[i])
		}
		if o.rest = o.rest[n:]; n > 0 {
			o.refusal.over()
		}
		switch {
		case err == nil, err == unix.EINTR:
			continue
		case refused(err):
			d.tally.Retries++
			if !o.refusal.again(err, d.to, int(fd)) {
				o.errno = err
				return
			}
			if o.rest[0].merged() {
				o.rest = d.packer.apart(o.rest)
				continue
			}
			d.tally.Refused++
			o.rest = o.rest[1:]
			continue
		case err == unix.EINVAL && o.rest[0].merged():
			o.rest = d.packer.apart(o.rest)
			continue
		case !d.lose(&o.rest[0], err):
			o.errno = err
			return
		}
		o.refusal.over()
		o.rest = o.rest[1:]
	}
}

// exit writes to an attached interface, and holds what it needs until released.
type exit interface {
	sink
	release() error
}

// mtuLimit is the longest frame in bytes that an interface takes, but for a tag of 802.1Q.
type mtuLimit int

// allows reports whether the interface takes frames of this length, and one tag more, as packet(7) does.
func (l mtuLimit) allows(p *parcel) bool {
	return len(p.frames[0]) <= int(l) || len(p.frames[0]) <= int(l)+tagLength && tagged8021Q(p.frames[0])
}

// exit makes what writes to an attached interface: a transmit ring, or a socket of AF_XDP, beside which what
// the packet socket writes passes by the queueing discipline, too.
func (d *Direction) exit(o Options) (exit, error) {
	if o.asked != XDP && o.asked != Direct {
		r, err := d.to.newTransmitRing(d.queue, d.room, o.Merging&Wire != 0)
		if err == nil && r.merged >= 0 {
			d.packer.merger = &segment.Merger{Sealed: true}
		}
		return r, err
	}
	err := control(d.target, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1) })
	if err != nil {
		return nil, err
	}
	if o.asked == XDP {
		return d.to.xdpOf(d.queue, d.room)
	}
	return d.to.directOf(d.queue, d.room)
}

// oneByOne writes a parcel with a call.
type oneByOne struct{}

func (oneByOne) put(fd int, parcels []parcel) (int, error) {
	if _, err := parcels[0].write(fd); err != nil {
		return 0, err
	}
	return 1, nil
}

// together writes a batch to a socket with one call, sendmmsg(2).
type together struct {
	headers [Batch]struct {
		message unix.Msghdr
		sent    uint32
	}
}

func (t *together) put(fd int, parcels []parcel) (int, error) {
	parcels = parcels[:min(len(parcels), Batch)]
	for i := range parcels {
		t.headers[i].message.Iov = &parcels[i].parts[0]
		t.headers[i].message.SetIovlen(len(parcels[i].parts))
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&t.headers)), uintptr(len(parcels)), 0, 0, 0)
	if errno != 0 {
		return 0, errno // of the first frame; a later frame's comes with the next call
	}
	return int(n), nil
}
