package transport

import (
	"net/netip"

	"tapsec/sa"
	"tapsec/wire"
)

// police holds a packet that has arrived against the policy (RFC 4301 section
// 5.2). The first rule that matches decides. One that came through an SA needs
// no rule of its own: it is what that SA's selector allows. Neighbour discovery
// of the link passes like ARP: without it no packet of any kind would.
func (c *Consumer) police(p wire.Packet) Reason {
	if len(c.policy) == 0 || len(c.via) == 0 && discovers(c.frame, p) {
		return None
	}
	for i := range c.policy {
		rule := &c.policy[i]
		if !c.concerns(rule, &p) {
			continue
		}
		switch rule.Action {
		case sa.Bypass:
			return None
		case sa.Discard:
			return Discard
		}
		return c.protected(rule)
	}
	if len(c.via) == 0 {
		return NoPolicy
	}
	return None
}

// concerns tells whether a rule is for the packet. Nobody knows the ports of a
// later fragment: a rule that restricts is for it if it may be, one that permits
// only if it must be.
func (c *Consumer) concerns(rule *sa.Policy, p *wire.Packet) bool {
	match := rule.Match
	if p.Later && rule.Action != sa.Bypass {
		match.SrcPorts, match.DstPorts = sa.Ports{}, sa.Ports{}
	}
	return selects(&match, c.frame, p)
}

// protected tells whether one of the SAs that carried the packet is the rule's.
func (c *Consumer) protected(rule *sa.Policy) Reason {
	if len(c.via) == 0 {
		return Clear
	}
	for _, a := range c.via {
		if rule.SA == "" || a.Name == rule.SA {
			return None
		}
	}
	return OtherSA
}

// selects tells whether a selector means the packet (RFC 4301 section 4.4.1.1);
// without one everything is meant. Only TCP, UDP, SCTP, DCCP and UDP-Lite have
// ports, and a later fragment shows none.
func selects(s *sa.Selector, frame []byte, p *wire.Packet) bool {
	if s == nil {
		return true
	}
	if !within(s.Src, p.Src) || !within(s.Dst, p.Dst) || s.Protocol != 0 && s.Protocol != p.Proto {
		return false
	}
	if s.SrcPorts == (sa.Ports{}) && s.DstPorts == (sa.Ports{}) {
		return true
	}
	b := frame[p.Header:max(p.Header, p.Reach)]
	if p.Later || !hasPorts(p.Proto) || len(b) < 4 {
		return false
	}
	return inside(s.SrcPorts, uint16(b[0])<<8|uint16(b[1])) && inside(s.DstPorts, uint16(b[2])<<8|uint16(b[3]))
}

func within(prefix netip.Prefix, a netip.Addr) bool { return !prefix.IsValid() || prefix.Contains(a) }

func inside(r sa.Ports, port uint16) bool {
	return r == (sa.Ports{}) || r.First <= port && port <= r.Last
}

func hasPorts(proto uint8) bool {
	switch proto {
	case wire.ProtoTCP, wire.ProtoUDP, 33, 132, 136:
		return true
	}
	return false
}

// discovers tells whether the packet is neighbour discovery (RFC 4861): no
// router has forwarded it, as its hop limit proves.
func discovers(frame []byte, p wire.Packet) bool {
	const hopLimitAt, first, last = 7, 133, 137
	return p.Version == 6 && p.Proto == wire.ProtoICMPv6 && !p.Fragment && frame[p.Start+hopLimitAt] == 255 &&
		p.Reach > p.Header && frame[p.Header] >= first && frame[p.Header] <= last
}
