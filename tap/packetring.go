package tap

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

const (
	ringBytes  = 16 << 20 // of an interface's packet rings together
	leastRing  = 2 << 20  // of each
	longSlot   = 16 << 10 // of a frame in a slot at most
	linkHeader = 14 + 2*tagLength
	slotHead   = 96 // of a slot: header, address and virtio header; the frame begins at an odd place

	copyThreshold = 1 // anything but 0: its slot decides whether a frame is copied
)

// packetRing is the receive ring of a packet socket (packet_mmap, TPACKET_V2): slots that the kernel fills
// in turn, and fills again once they are given back. It is version 2 because version 3 reports only whole
// blocks, or blocks a millisecond old.
//
//	| tpacket2_hdr | sockaddr_ll | ... | virtio_net_hdr | frame | ... room after it
//	                                                    ^ mac of the header
//
// A frame longer than its slot is truncated there, and complete in the socket's own queue, from which
// recvmsg takes it. If that queue is full, the frame is lost.
//
// A ring belongs to its device and passes from one worker to the next, so that no frame in it is lost. Its
// last holder unmaps it.
type packetRing struct {
	socketRing
	at      int // the slot that the kernel fills next, or has filled
	lent    int // slots before it that are not given back
	first   int // of them
	holders atomic.Int32
}

// newPacketRing makes a socket receive through a ring of that many bytes. Its slots have room for a frame
// and tail bytes after it, if possible for the longest frame that the interface's MTU allows now.
func newPacketRing(f *os.File, bytes, room, tail int) (*packetRing, error) {
	if err := control(f, func(fd int) error {
		mtu, err := mtuOf(fd)
		room = min(room, mtu+linkHeader, longSlot)
		return err
	}); err != nil {
		return nil, fmt.Errorf("MTU of %s: %w", f.Name(), err)
	}
	r := new(packetRing)
	r.holders.Store(1)
	err := control(f, func(fd int) (err error) {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, copyThreshold); err != nil {
			return err
		}
		r.socketRing, err = newSocketRing(fd, unix.PACKET_RX_RING, (slotHead+room+tail+63)&^63, bytes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("a packet ring on %s: %w", f.Name(), err)
	}
	return r, nil
}

// mtuOf returns the MTU of a packet socket's interface.
func mtuOf(fd int) (int, error) {
	ifr, err := askBound(fd, unix.SIOCGIFMTU)
	if err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// running reports whether a packet socket's interface is up and has a carrier.
func running(fd int) bool {
	ifr, err := askBound(fd, unix.SIOCGIFFLAGS)
	return err == nil && ifr.Uint16()&unix.IFF_RUNNING != 0
}

// askBound asks about a packet socket's interface.
func askBound(fd int, request uint) (*unix.Ifreq, error) {
	index, err := boundIndex(fd)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return nil, err
	}
	ifr.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return nil, err
	}
	name, err := unix.NewIfreq(ifr.Name())
	if err != nil {
		return nil, err
	}
	return name, unix.IoctlIfreq(fd, request, name)
}

// hold keeps the ring mapped until release.
func (r *packetRing) hold() { r.holders.Add(1) }

func (r *packetRing) release() error {
	if r.holders.Add(-1) > 0 {
		return nil
	}
	return unix.Munmap(r.memory)
}

// ready reports whether the next slot is filled.
func (r *packetRing) ready() bool {
	return r.lent < r.count && loadStatus(r.slot(r.at))&unix.TP_STATUS_USER != 0
}

// take lends the next slot, which is filled. A header that contradicts itself is an error.
func (r *packetRing) take() (arrival, error) {
	slot := r.slot(r.at)
	status := loadStatus(slot)
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(unsafe.SliceData(slot)))
	begin, size := int(h.Mac), int(h.Snaplen)
	if begin < int(unsafe.Sizeof(*h))+segment.HeaderLen || begin+size > len(slot) {
		return arrival{}, fmt.Errorf("the packet ring has a frame of %d bytes at %d of a slot with %d", size, begin, len(slot))
	}
	r.at = r.after(r.at)
	r.lent++
	return arrival{slot: slot, begin: begin, end: begin + size, length: int(h.Len), copied: status&unix.TP_STATUS_COPY != 0,
		tagged: status&unix.TP_STATUS_VLAN_VALID != 0, tci: h.Vlan_tci, tpid: h.Vlan_tpid}, nil
}

// giveBack lets the kernel fill what was lent.
func (r *packetRing) giveBack() {
	for ; r.lent > 0; r.lent-- {
		storeStatus(r.slot(r.first), unix.TP_STATUS_KERNEL)
		r.first = r.after(r.first)
	}
}

// arrival is a frame in a slot, and what the kernel delivers beside its bytes.
type arrival struct {
	slot       []byte
	begin, end int  // of the frame in it
	length     int  // of the frame as it came
	bare       bool // the kernel delivered nothing else
	copied     bool // complete in the socket's queue, since it is truncated here
	tagged     bool
	tci, tpid  uint16
}

// whole reports whether all of the frame is in the slot.
func (a *arrival) whole() bool { return a.end-a.begin == a.length }

func (a *arrival) vnet() []byte { return a.slot[a.begin-segment.HeaderLen : a.begin] }

func (a *arrival) frame() []byte { return a.slot[a.begin:a.end] }

// tag puts the outer VLAN tag back, over the virtio header.
func (a *arrival) tag() {
	if !a.tagged || a.end-a.begin < addresses {
		return
	}
	a.begin -= tagLength
	putTag(a.frame(), a.tpid, a.tci)
}
