package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	transmitSlots = 256                         // about
	transmitHead  = unix.SizeofTpacket2Hdr      // bytes of a slot's header
	transmitRoom  = transmitHead + virtioLen    // bytes in front of a frame
	headerLength  = 2                           // where a virtio header has how long the frame's headers are
	unsent        = unix.TP_STATUS_SEND_REQUEST // a slot that the kernel is to send
)

// transmitRing sends by the transmit ring of a packet socket of its own (packet_mmap, TPACKET_V2): slots that
// the kernel goes through with one call, in order, and with which each frame passes the interface's queueing
// discipline as it does after a write.
//
//	| tpacket2_hdr | virtio_net_hdr | frame
//
// The virtio header calls all of the frame headers, so that the kernel copies it whole. Of a frame without one
// it copies the Ethernet header and refers to the slot for the rest, which a veth then copies to pages of its
// own: dearer than sendmmsg.
//
// Between two calls no slot is to be sent: what the kernel has not taken is taken back, and comes again with the
// next call, in the same slot. While the frame of the next slot is on its way, what is to be sent waits.
type transmitRing struct {
	socketRing
	fd      int
	index   int // of the interface
	at      int // the slot that the kernel looks at next
	most    int // parcels for the next call: one, while something is refused
	request unix.Ifreq
	limit   mtuLimit
	long    together // sends what no slot has room for
	merged  int      // a socket that sends what is merged; -1 if nothing is to be
}

// newTransmitRing makes a ring with slots for a frame, if possible one as long as the interface's MTU allows
// now. Merged frames it sends to a TAP only: a program that reads that has said whether it takes them, and if
// not, the kernel cuts them. Behind any other interface nobody has been asked.
func (d *Device) newTransmitRing(queue, room int, merging bool) (*transmitRing, error) {
	r := &transmitRing{fd: -1, merged: -1, most: Batch}
	err := control(d.outs[queue], func(out int) (err error) {
		if r.index, err = boundIndex(out); err != nil {
			return err
		}
		return inNamespace(out, unix.SIOCGSKNS, func() error {
			r.fd, err = d.virtioSocket(r.index)
			if err == nil && merging && isTAP(out) {
				r.merged, err = d.virtioSocket(r.index)
			}
			return err
		})
	})
	if err == nil {
		r.look()
		size := (transmitRoom + min(room, int(r.limit)+2*tagLength, longSlot) + 63) &^ 63
		r.socketRing, err = newSocketRing(r.fd, unix.PACKET_TX_RING, size, transmitSlots*size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a transmit ring on %s: %w", d.name, err), r.release())
	}
	return r, nil
}

// release lets go of socket and memory. Frames on their way are the kernel's own.
func (r *transmitRing) release() (err error) {
	if r.memory != nil {
		err = unix.Munmap(r.memory)
	}
	for _, fd := range []int{r.fd, r.merged} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// virtioSocket makes a packet socket to write to, with a virtio header in front of each frame.
func (d *Device) virtioSocket(index int) (int, error) {
	f, err := packetSocket(d.name, index, 0, func(fd, _ int) error {
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	})
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return duplicate(f)
}

// isTAP reports whether a packet socket's interface is a TAP.
func isTAP(fd int) bool {
	ifr, err := askBound(fd, unix.SIOCGIFINDEX)
	if err != nil {
		return false
	}
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, ifr.Name())
	return err == nil && unix.ByteSliceToString(info.Driver[:]) == "tun"
}

// put sends parcels with one call, up to a merged one or up to one that is not. Merged ones, and those that no
// slot has room for, leave by other sockets. While frames
// of ours are in a full queue, that is what a frame waits for, and not refused.
func (r *transmitRing) put(fd int, parcels []parcel) (int, error) {
	if n := mergedFirst(parcels); n > 0 {
		return r.sendMerged(parcels[:n])
	}
	n, err := r.stage(parcels[:min(len(parcels), r.most)])
	switch {
	case n > 0: // the error comes again, with the next call
	case err == errLong:
		return r.long.put(fd, parcels[:1])
	default:
		return 0, err
	}
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(r.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	taken := r.settle(n)
	if taken == n { // an error of what comes behind them shows by the next call
		r.most = Batch
		return n, nil
	}
	r.most = 1
	if errno == 0 {
		errno = unix.EAGAIN
	}
	return taken, r.busy(errno)
}

// busy turns the refusal of a queue in which frames of ours wait into one that passes.
func (r *transmitRing) busy(err error) error {
	if err == unix.ENOBUFS && (outstanding(r.fd) || r.merged >= 0 && outstanding(r.merged)) {
		return unix.EAGAIN
	}
	return err
}

// sendMerged sends merged parcels, up to one whose frames the MTU does not allow.
func (r *transmitRing) sendMerged(parcels []parcel) (int, error) {
	r.look()
	for i := range parcels {
		if !r.limit.allows(&parcels[i]) {
			if parcels = parcels[:i]; i == 0 {
				return 0, unix.EMSGSIZE
			}
			break
		}
	}
	n, err := r.long.put(r.merged, parcels)
	return n, r.busy(err)
}

// mergedFirst is how many parcels from the first on are merged.
func mergedFirst(parcels []parcel) (n int) {
	for n < len(parcels) && parcels[n].merged() {
		n++
	}
	return n
}

// errLong is for a frame that no slot has room for.
var errLong = errors.New("longer than a slot")

// stage copies parcels into slots until there are no more slots, or a parcel is too long, and says which.
func (r *transmitRing) stage(parcels []parcel) (int, error) {
	r.look()
	at := r.at
	for i := range parcels {
		p, slot := &parcels[i], r.slot(at)
		switch {
		case p.merged():
			return i, nil
		case p.length > len(slot)-transmitRoom:
			return i, errLong
		case !r.limit.allows(p):
			return i, unix.EMSGSIZE
		case loadStatus(slot)&(unsent|unix.TP_STATUS_SENDING) != 0:
			return i, unix.EAGAIN
		}
		length := p.copy(slot[transmitRoom:])
		binary.NativeEndian.PutUint16(slot[transmitHead+headerLength:], uint16(length))
		(*unix.Tpacket2Hdr)(unsafe.Pointer(unsafe.SliceData(slot))).Len = uint32(virtioLen + length)
		storeStatus(slot, unsent)
		at = r.after(at)
	}
	return len(parcels), nil
}

// settle counts those of n slots that the kernel has taken, and takes the others back.
func (r *transmitRing) settle(n int) (taken int) {
	const left = unsent | unix.TP_STATUS_WRONG_FORMAT
	for taken < n && loadStatus(r.slot(r.at))&left == 0 {
		r.at = r.after(r.at)
		taken++
	}
	at := r.at
	for range n - taken {
		storeStatus(r.slot(at), unix.TP_STATUS_AVAILABLE)
		at = r.after(at)
	}
	return taken
}

// look asks for the MTU, which the kernel does not compare with a frame that has a virtio header. An interface
// that is gone shows by the next call.
func (r *transmitRing) look() {
	r.request.SetUint32(uint32(r.index))
	if unix.IoctlIfreq(r.fd, unix.SIOCGIFNAME, &r.request) == nil && unix.IoctlIfreq(r.fd, unix.SIOCGIFMTU, &r.request) == nil {
		r.limit = mtuLimit(r.request.Uint32() + linkLength)
	}
}
