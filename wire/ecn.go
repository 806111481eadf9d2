package wire

import "encoding/binary"

// The values of the ECN field (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// ECN is the ECN field of packet p (RFC 3168 section 5): 0 for not-ECT, 1 for
// ECT(1), 2 for ECT(0), 3 for CE.
func ECN(frame []byte, p *Packet) uint8 { return trafficClass(frame, p) & 3 }

// PropagateECN gives the packet inside a tunnel the ECN field of RFC 6040 section 4.2, and
// leaves its DSCP. False means that the packet must be dropped: the tunnel met congestion,
// and the inner packet has no way to say so.
func PropagateECN(frame []byte, outer, inner *Packet) bool {
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
func trafficClass(frame []byte, p *Packet) uint8 {
	if p.Version == 4 {
		return frame[p.Start+1]
	}
	return uint8(binary.BigEndian.Uint16(frame[p.Start:]) >> 4)
}

// setECN leaves an IPv4 header checksum as right or wrong as it was.
func setECN(frame []byte, p *Packet, ecn uint8) {
	b, be := frame[p.Start:], binary.BigEndian
	was := be.Uint16(b)
	if p.Version == 6 {
		be.PutUint16(b, was&^(3<<4)|uint16(ecn)<<4)
		return
	}
	be.PutUint16(b, was&^3|uint16(ecn))
	be.PutUint16(b[10:], updateChecksum(be.Uint16(b[10:]), was, be.Uint16(b)))
}
