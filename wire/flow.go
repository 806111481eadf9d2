package wire

import (
	"encoding/binary"
	"net/netip"
)

// Flow is all of a packet that selectors and policies ask for (RFC 4301 section
// 4.4.1.1). It is comparable. The zero Shown hides most, so that who forgets to
// set it errs on the safe side.
type Flow struct {
	Src, Dst         netip.Addr
	Protocol         uint8 // of the upper layer, AH or ESP
	Shown            Shown
	SrcPort, DstPort uint16 // 0 where there are none, or none are shown
}

// Shown says how much of its flow a packet shows.
type Shown uint8

// How much it may be.
const (
	ShownAddresses Shown = iota // neither protocol nor ports
	ShownProtocol               // not the ports that there may be: a later fragment
	ShownAll                    // protocol, and the ports of one that has some
)

// FlowOf reads the flow of packet p.
func FlowOf(frame []byte, p *Packet) Flow {
	f := Flow{Src: p.Src, Dst: p.Dst, Protocol: p.Proto, Shown: ShownProtocol}
	switch {
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
	const dccp, sctp, udpLite = 33, 132, 136
	switch f.Protocol {
	case ProtoTCP, ProtoUDP, dccp, sctp, udpLite:
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
