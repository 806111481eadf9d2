package wire

import (
	"encoding/binary"
	"net/netip"
)

// Flow is all that selectors and policies look at in a packet (RFC 4301 section 4.4.1.1).
// It is comparable. The zero Shown hides most, so that forgetting to set it is safe.
type Flow struct {
	Src, Dst         netip.Addr
	Protocol         uint8 // of the upper layer, AH or ESP
	Shown            Shown
	SrcPort, DstPort uint16 // 0 where there are none, or none are shown
}

// Shown says how much of a flow its packet shows.
type Shown uint8

// How much is shown.
const (
	ShownAddresses Shown = iota // neither protocol nor ports: a later fragment after extension headers
	ShownProtocol               // no ports, though there may be some: a later fragment
	ShownAll                    // protocol, and ports if it has any
)

// FlowOf reads the flow of packet p.
func FlowOf(frame []byte, p *Packet) Flow {
	f := Flow{Src: p.Src, Dst: p.Dst, Protocol: p.Proto, Shown: ShownProtocol}
	switch {
	case p.Later && p.Version == 6 && isExtension(p.Proto):
		f.Shown = ShownAddresses
	case p.Later:
	case !f.HasPorts():
		f.Shown = ShownAll
	case p.Header+4 <= p.Reach:
		b := frame[p.Header:]
		f.Shown, f.SrcPort, f.DstPort = ShownAll, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	return f
}

// HasPorts reports whether the flow's protocol has ports: TCP, UDP, DCCP, SCTP
// and UDP-Lite.
func (f *Flow) HasPorts() bool {
	switch f.Protocol {
	case ProtoTCP, ProtoUDP, protoDCCP, protoSCTP, protoUDPLite:
		return true
	}
	return false
}

// ShortChain reports whether packet p is a fragment that splits the headers: a first one
// without all of them, the upper layer's included (RFC 7112 section 5), or a later one
// that begins inside them (RFC 1858 section 3.2.2, RFC 3128). Selectors would look at one
// header, and the receiver at another.
func ShortChain(frame []byte, p *Packet) bool {
	switch {
	case !p.Fragment:
		return false
	case p.Later:
		return ParseFragment(frame, p).Offset < upperLen(p.Proto)
	default:
		return p.Reach-p.Header < upperLen(p.Proto)
	}
}

// upperLen is the least length of an upper layer's header, or of AH or ESP; 0 for a
// protocol that nobody here looks into.
func upperLen(proto uint8) int {
	switch proto {
	case ProtoTCP:
		return 20
	case protoDCCP, protoSCTP, ProtoAH:
		return 12
	case ProtoUDP, protoUDPLite, ProtoICMP, ProtoICMPv6, ProtoESP:
		return 8
	}
	return 0
}

// isExtension reports whether the number is an IPv6 extension header's, so that the upper
// layer comes later (RFC 7045 section 4).
func isExtension(proto uint8) bool {
	const mobility, hip, shim6 = 135, 139, 140
	switch proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDestOpts, mobility, hip, shim6:
		return true
	}
	return false
}

// IsNeighborDiscovery reports whether packet p is neighbour discovery of this
// link (RFC 4861): no router has forwarded it, as its hop limit proves.
func IsNeighborDiscovery(frame []byte, p *Packet) bool {
	const hopLimitAt, first, last = 7, 133, 137
	return p.Version == 6 && p.Proto == ProtoICMPv6 && !p.Fragment && frame[p.Start+hopLimitAt] == 255 &&
		p.Header < p.Reach && frame[p.Header] >= first && frame[p.Header] <= last
}
