package wire

import (
	"encoding/binary"
	"net/netip"
)

// AppendIP appends an IPv4 or IPv6 header without options, length and checksum: see SetLength. tos is TOS or
// traffic class; id and flags are IPv4's. It panics if the addresses are of two versions.
func AppendIP(dst []byte, from, to netip.Addr, proto, tos uint8, id, flags uint16) []byte {
	const hops = 64
	be := binary.BigEndian
	if from.Is4() != to.Is4() {
		panic("wire: a packet between two IP versions")
	}
	if from.Is4() {
		src, target := from.As4(), to.As4()
		dst = append(dst, 0x45, tos, 0, 0)
		dst = be.AppendUint16(dst, id)
		dst = be.AppendUint16(dst, flags)
		dst = append(dst, hops, proto, 0, 0)
		return append(append(dst, src[:]...), target[:]...)
	}
	src, target := from.As16(), to.As16()
	dst = be.AppendUint32(dst, 6<<28|uint32(tos)<<20)
	dst = append(dst, 0, 0, proto, hops)
	return append(append(dst, src[:]...), target[:]...)
}

// SetLength gives the IP header of a whole packet its length and, in IPv4, its checksum. It reports whether the
// length is one that a header can say, 65535 bytes at most; in IPv6 the header does not count.
func SetLength(packet []byte) bool {
	be, length := binary.BigEndian, len(packet)
	if packet[0]>>4 == 6 {
		length -= IPv6Len
	}
	switch {
	case length > 0xffff:
		return false
	case packet[0]>>4 == 6:
		be.PutUint16(packet[4:], uint16(length))
	default:
		be.PutUint16(packet[2:], uint16(length))
		be.PutUint16(packet[10:], 0)
		be.PutUint16(packet[10:], Checksum(0, packet[:int(packet[0]&15)*4]))
	}
	return true
}
