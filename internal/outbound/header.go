package outbound

import (
	"tapsec/sa"
	"tapsec/wire"
)

// outer appends the outer header of a tunnel (RFC 4301 section 5.1.2). DSCP, ECN (RFC 6040
// section 4.1) and DF are the inner header's. An inner IPv6 packet, which routers may not
// fragment, counts as DF.
func outer(dst []byte, a *sa.SA, proto uint8, id uint16, inner []byte) []byte {
	tos, df := inner[1], be.Uint16(inner[6:])&dontFragment
	if inner[0]>>4 == 6 {
		tos, df = uint8(be.Uint16(inner)>>4), dontFragment
	}
	return wire.AppendIP(dst, a.Src, a.Dst, proto, tos, id, df)
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
