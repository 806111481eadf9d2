package wire

import "encoding/binary"

// Numbers of upper protocols.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoICMPv6 = 58

	protoDCCP    = 33
	protoSCTP    = 132
	protoUDPLite = 136
)

// The values of the ECN field (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// HeaderSum reports whether the header checksum of packet p is right; an IPv6
// packet has none.
func HeaderSum(frame []byte, p Packet) bool {
	if p.Version != 4 {
		return true
	}
	length := int(frame[p.Start]&15) * 4
	return Checksum(0, frame[p.Start:p.Start+length]) == 0
}

// PropagateECN gives the packet inside a tunnel the ECN field that RFC 6040
// section 4.2 asks for, its DSCP untouched. False means that the packet must
// be dropped: the tunnel met congestion, and what it carries cannot be told.
func PropagateECN(frame []byte, outer, inner Packet) bool {
	was := trafficClass(frame, inner) & 3
	out := trafficClass(frame, outer) & 3
	is := was
	switch {
	case was == notECT && out == ce:
		return false
	case was == notECT || was == ce:
	case out == ce:
		is = ce
	case out == ect1:
		is = ect1
	}
	if is != was {
		setECN(frame, inner, is)
	}
	return true
}

// trafficClass is the TOS byte of IPv4, the traffic class of IPv6.
func trafficClass(frame []byte, p Packet) uint8 {
	if p.Version == 4 {
		return frame[p.Start+1]
	}
	return uint8(binary.BigEndian.Uint16(frame[p.Start:]) >> 4)
}

// setECN keeps an IPv4 header checksum as right or wrong as it was.
func setECN(frame []byte, p Packet, ecn uint8) {
	b, be := frame[p.Start:], binary.BigEndian
	was := be.Uint16(b)
	if p.Version == 6 {
		be.PutUint16(b, was&^(3<<4)|uint16(ecn)<<4)
		return
	}
	be.PutUint16(b, was&^3|uint16(ecn))
	be.PutUint16(b[10:], updateChecksum(be.Uint16(b[10:]), was, be.Uint16(b)))
}

// UpperSum computes the checksum of the TCP segment or UDP datagram that p
// carries anew, over the addresses in p's header (RFC 3948 section 3.1.2). A
// UDP checksum of zero, none, stays zero over IPv4, and bytes behind a datagram's
// own length (RFC 4303 section 2.7) do not count. Other protocols, and segments
// too short for a checksum, are left alone.
func UpperSum(frame []byte, p Packet) {
	const tcpSum, udpSum = 16, 6
	b := frame[p.Header:max(p.Header, p.Reach)]
	at := tcpSum
	if p.Proto == ProtoUDP {
		at = udpSum
	}
	if p.Proto != ProtoTCP && p.Proto != ProtoUDP || len(b) < at+2 {
		return
	}
	sum := b[at : at+2]
	if p.Proto == ProtoUDP && p.Version == 4 && sum[0]|sum[1] == 0 {
		return
	}
	if n := int(binary.BigEndian.Uint16(b[4:])); p.Proto == ProtoUDP && n >= UDPLen && n < len(b) {
		b = b[:n]
	}
	sum[0], sum[1] = 0, 0
	s := Checksum(pseudoSum(p, len(b)), b)
	if p.Proto == ProtoUDP && s == 0 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(sum, s)
}

// pseudoSum is the partial sum of the pseudo-header (RFC 793 section 3.1, RFC
// 8200 section 8.1).
func pseudoSum(p Packet, length int) uint32 {
	sum := uint32(p.Proto) + uint32(length)
	src, dst := p.Src.As16(), p.Dst.As16()
	from := 0
	if p.Version == 4 {
		from = 12
	}
	for i := from; i < 16; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(src[i:])) + uint32(binary.BigEndian.Uint16(dst[i:]))
	}
	return sum
}

// Addresses reads the addresses of the IP header at frame[at], of whichever
// version; ok is false where none is all there.
func Addresses(frame []byte, at int) (p Packet, ok bool) {
	if at < 0 || at >= len(frame) {
		return p, false
	}
	p, err := ParseIP(frame, at, len(frame), frame[at]>>4)
	return p, err == nil
}
