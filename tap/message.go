package tap

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	addresses = 12 // bytes of an Ethernet header in front of a VLAN tag
	tagLength = 4
	vnetBytes = 10 // struct virtio_net_hdr of linux/virtio_net.h
)

// message receives frames of a packet socket together with what the kernel tells apart from their
// bytes. It is made once for a direction, so that nothing is allocated for a frame.
type message struct {
	header  unix.Msghdr
	bytes   unix.Iovec
	control [8]uint64 // room for one control message, aligned
}

// receive reads one frame into slot behind its head room. The frame returned may begin in the head
// room; one that was cut short comes back longer than the slot's room, or as EMSGSIZE.
//
//  1. Receive the frame with its virtio header in front, and the control message.
//  2. Fill in a checksum that was left to hardware.
//  3. Put the outer VLAN tag back behind the two addresses: the kernel has taken it out.
func (m *message) receive(fd int, slot []byte) ([]byte, error) {
	m.bytes.Base = &slot[head-vnetBytes]
	m.bytes.SetLen(len(slot) - head + vnetBytes)
	m.header.Iov, m.header.Iovlen = &m.bytes, 1
	m.header.Control = (*byte)(unsafe.Pointer(&m.control))
	m.header.SetControllen(int(unsafe.Sizeof(m.control)))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.header)), 0)
	switch {
	case errno == unix.EINVAL: // merged in a way that a virtio header cannot tell
		return nil, unix.EMSGSIZE
	case errno != 0:
		return nil, errno
	}
	vnet, frame := slot[head-vnetBytes:head], slot[head:head-vnetBytes+int(n)]
	if !fillChecksum(vnet, frame) {
		return nil, unix.EMSGSIZE
	}
	if tci, tpid, tagged := m.tag(); tagged && len(frame) >= addresses {
		copy(slot[head-tagLength:], frame[:addresses])
		frame = slot[head-tagLength : head+len(frame)]
		binary.BigEndian.PutUint16(frame[addresses:], tpid)
		binary.BigEndian.PutUint16(frame[addresses+2:], tci)
	}
	return frame, nil
}

// tag returns the VLAN tag of the frame last received.
func (m *message) tag() (tci, tpid uint16, tagged bool) {
	if m.header.Controllen < uint64(unix.CmsgLen(int(unsafe.Sizeof(unix.TpacketAuxdata{})))) {
		return 0, 0, false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&m.control))
	if c.Level != unix.SOL_PACKET || c.Type != unix.PACKET_AUXDATA {
		return 0, 0, false
	}
	aux := (*unix.TpacketAuxdata)(unsafe.Add(unsafe.Pointer(&m.control), unix.CmsgLen(0)))
	return aux.Vlan_tci, aux.Vlan_tpid, aux.Status&unix.TP_STATUS_VLAN_VALID != 0
}

// fillChecksum does what a sender left to hardware: the sum over all bytes from its start on, which
// include the pseudo header's sum at its place. It reports false for datagrams that were merged: they
// are no longer the frames that they were, while merged TCP segments are one that might have been.
//
// The header is flags, kind of merger, length of headers, size of pieces, start of the sum, and its
// place counted from there; the last four have two bytes each, in the machine's order.
func fillChecksum(vnet, frame []byte) bool {
	kind := vnet[1] &^ unix.VIRTIO_NET_HDR_GSO_ECN
	if kind == unix.VIRTIO_NET_HDR_GSO_UDP || kind == unix.VIRTIO_NET_HDR_GSO_UDP_L4 {
		return false
	}
	if vnet[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 {
		return true
	}
	start := int(binary.NativeEndian.Uint16(vnet[6:]))
	place := start + int(binary.NativeEndian.Uint16(vnet[8:]))
	if place+2 > len(frame) {
		return true // cut short: too long for the link in any case
	}
	sum := ^onesSum(frame[start:])
	if sum == 0 {
		sum = 0xffff // a UDP checksum of zero says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(frame[place:], sum)
	return true
}

// onesSum is the one's complement sum over 16-bit words (RFC 1071); an odd last byte counts as if a
// zero followed.
func onesSum(b []byte) uint16 {
	var sum uint64
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
