package outbound

import (
	"net/netip"

	"tapsec/sa"
	"tapsec/wire"
)

// flow is all of a packet that says which SAs it gets.
type flow struct {
	src, dst         netip.Addr
	proto            uint8
	known            bool // the ports were there to be read
	blind            bool // there are ports, and they were not: a later fragment
	srcPort, dstPort uint16
}

func flowOf(frame []byte, p *wire.Packet) flow {
	f := flow{src: p.Src, dst: p.Dst, proto: p.Proto, blind: p.Later}
	if !p.Later && hasPorts(p.Proto) {
		f.readPorts(frame[p.Header:max(p.Header, p.Reach)])
	}
	return f
}

func hasPorts(proto uint8) bool {
	switch proto {
	case wire.ProtoTCP, wire.ProtoUDP, 33, 132, 136: // DCCP, SCTP, UDP-Lite
		return true
	}
	return false
}

func (f *flow) readPorts(upper []byte) {
	if len(upper) < 4 {
		f.blind = true
		return
	}
	f.known, f.srcPort, f.dstPort = true, be.Uint16(upper), be.Uint16(upper[2:])
}

// matches tells whether a selector means the flow's packets (RFC 4301 section
// 4.4.1.1).
func (f *flow) matches(s *sa.Selector) bool {
	if !within(s.Src, f.src) || !within(s.Dst, f.dst) || s.Protocol != 0 && s.Protocol != f.proto {
		return false
	}
	if s.SrcPorts == (sa.Ports{}) && s.DstPorts == (sa.Ports{}) {
		return true
	}
	return f.known && inside(s.SrcPorts, f.srcPort) && inside(s.DstPorts, f.dstPort)
}

func within(prefix netip.Prefix, a netip.Addr) bool { return !prefix.IsValid() || prefix.Contains(a) }

func inside(r sa.Ports, port uint16) bool {
	return r == (sa.Ports{}) || r.First <= port && port <= r.Last
}

// concerns tells whether a rule is for the flow. Where nobody knows its ports, a
// rule that restricts is for it if it may be, one that permits only if it must
// be.
func (f *flow) concerns(rule *sa.Policy) bool {
	match := rule.Match
	if f.blind && rule.Action != sa.Bypass {
		match.SrcPorts, match.DstPorts = sa.Ports{}, sa.Ports{}
	}
	return f.matches(&match)
}
