// Package segment turns what the kernel hands to a packet socket back into the frames of a wire. It fills
// in a checksum that was left to hardware, and cuts what the sender left uncut or the receiver merged
// (TSO, GSO, GRO) into pieces with headers of their own.
//
// The virtio header that the kernel puts before a frame says what has to be done. Everything here works
// in the caller's memory and allocates nothing.
package segment

import (
	"encoding/binary"
	"hash/crc32"

	"tapsec/wire"
)

// HeaderLen is the length in bytes of struct virtio_net_hdr, as packet(7) has it.
const HeaderLen = 10

// Header is struct virtio_net_hdr of linux/virtio_net.h: two bytes, then four fields of two bytes each
// in the machine's order. hdr_len is left out: it is a hint that senders get wrong.
type Header struct {
	flags, kind uint8
	size        int // bytes of payload in a piece
	start       int // where the bytes begin that the missing checksum covers
	place       int // of that checksum, counted from start
}

const (
	needsSum = 1 // of the flags

	kindTCPv4 = 1 // of the kinds
	kindTCPv6 = 4
	kindUDP   = 5
	kindECN   = 0x80 // only the first piece has CWR (RFC 3168 section 6.1.2)
)

// Parse reads the header before a frame. It panics if b is shorter than HeaderLen.
func Parse(b []byte) Header {
	order := binary.NativeEndian
	return Header{flags: b[0], kind: b[1], size: int(order.Uint16(b[4:])), start: int(order.Uint16(b[6:])), place: int(order.Uint16(b[8:]))}
}

// Merged reports whether the frame is several in one, to be cut by a Cutter.
func (h Header) Merged() bool { return h.kind&^kindECN != 0 }

// Shift adapts the header to a frame with n more bytes before its network header, such as a VLAN tag that
// was put back.
func (h Header) Shift(n int) Header {
	h.start += n
	return h
}

// Finish computes the checksum that was left to hardware, in a frame that is not merged. It is the
// Internet checksum over all bytes from start, with the pseudo-header's sum in its place, or SCTP's
// CRC32c over them, with zeros in its place (RFC 9260 section 6.8). The place tells which it is: only
// SCTP has it in the third word. A frame that ends before that is left alone.
func (h Header) Finish(frame []byte) {
	at := h.start + h.place
	if h.flags&needsSum == 0 || at+2 > len(frame) {
		return
	}
	const ofSCTP = 8
	if h.place != ofSCTP {
		sum := wire.Checksum(0, frame[h.start:])
		if sum == 0 {
			sum = 0xffff // a UDP checksum of zero says that there is none (RFC 768)
		}
		binary.BigEndian.PutUint16(frame[at:], sum)
		return
	}
	if at+4 > len(frame) {
		return
	}
	clear(frame[at : at+4])
	binary.LittleEndian.PutUint32(frame[at:], crc32.Checksum(frame[h.start:], castagnoli)) // RFC 9260 appendix A
}

// Complete fills in a checksum that was left to hardware if nothing but the frame itself shows that: in
// TCP and UDP the field then holds exactly the sum of the pseudo-header, in SCTP zero. It reports whether
// it found one; after a tunnel's headers it never does.
func Complete(frame []byte) bool {
	at := network(frame)
	if at >= len(frame) {
		return false
	}
	var p wire.Packet
	if p.ParseIP(frame, at, len(frame), frame[at]>>4) != nil || p.Fragment || p.Short {
		return false
	}
	const protoSCTP, place = 132, 8
	switch b := frame[p.Header:p.Reach]; {
	case p.Proto == protoSCTP && len(b) >= place+4 && binary.BigEndian.Uint32(b[place:]) == 0:
		Header{flags: needsSum, start: p.Header, place: place}.Finish(frame[:p.Reach])
		return true
	case wire.MayBePartial(frame, &p) && wire.CheckUpperSum(frame, &p) == wire.SumPartial:
		wire.UpperSum(frame, &p)
		return true
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
