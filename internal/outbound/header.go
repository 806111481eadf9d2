package outbound

import (
	"net/netip"

	"tapsec/sa"
	"tapsec/wire"
)

const ttl = 64

// appendIP appends an IPv4 or IPv6 header without length and checksum, which mend fills in.
// tos is TOS or traffic class; id and flags are IPv4's.
func appendIP(dst []byte, from, to netip.Addr, proto, tos uint8, id, flags uint16) []byte {
	if from.Is4() != to.Is4() {
		panic("outbound: a packet between two IP versions")
	}
	if from.Is4() {
		src, target := from.As4(), to.As4()
		dst = append(dst, 0x45, tos, 0, 0)
		dst = be.AppendUint16(dst, id)
		dst = be.AppendUint16(dst, flags)
		dst = append(dst, ttl, proto, 0, 0)
		return append(append(dst, src[:]...), target[:]...)
	}
	src, target := from.As16(), to.As16()
	dst = be.AppendUint32(dst, 6<<28|uint32(tos)<<20)
	dst = append(dst, 0, 0, proto, ttl)
	return append(append(dst, src[:]...), target[:]...)
}

// outer appends the outer header of a tunnel (RFC 4301 section 5.1.2). DSCP, ECN (RFC 6040
// section 4.1) and DF are the inner header's. An inner IPv6 packet, which routers may not
// fragment, counts as DF.
func outer(dst []byte, a *sa.SA, proto uint8, id uint16, inner []byte) []byte {
	tos, df := inner[1], be.Uint16(inner[6:])&dontFragment
	if inner[0]>>4 == 6 {
		tos, df = uint8(be.Uint16(inner)>>4), dontFragment
	}
	return appendIP(dst, a.Src, a.Dst, proto, tos, id, df)
}

// mend fills in the IP header's length and IPv4 checksum. The error is ErrTooLong.
func mend(packet []byte) error {
	if packet[0]>>4 == 6 {
		if len(packet)-wire.IPv6Len > 0xffff {
			return ErrTooLong
		}
		be.PutUint16(packet[4:], uint16(len(packet)-wire.IPv6Len))
		return nil
	}
	if len(packet) > 0xffff {
		return ErrTooLong
	}
	be.PutUint16(packet[2:], uint16(len(packet)))
	be.PutUint16(packet[10:], 0)
	be.PutUint16(packet[10:], wire.Checksum(0, packet[:int(packet[0]&15)*4]))
	return nil
}

// appendUDP appends the header of UDP encapsulation (RFC 3948 section 2.1). Its length is 0
// until setUDPLen is called.
func appendUDP(dst []byte, s *sa.SA) []byte {
	from, to := s.EncapPorts()
	dst = be.AppendUint16(dst, from)
	dst = be.AppendUint16(dst, to)
	return append(dst, 0, 0, 0, 0)
}

func setUDPLen(datagram []byte) { be.PutUint16(datagram[4:], uint16(len(datagram))) }
