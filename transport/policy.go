package transport

import (
	"tapsec/sa"
	"tapsec/wire"
)

// checkPolicy holds a packet that has arrived against the policy (RFC 4301
// section 5.2). The first rule for it decides. One that came through an SA needs
// no rule of its own: it is what that SA's selector allows. Neighbour discovery
// of the link passes like ARP: without it no packet of any kind would. A fragment
// that hides what rules ask for is not held against them.
func (r *Receiver) checkPolicy(f *frame, p *wire.Packet) Reason {
	if len(r.policy) == 0 || len(f.carriedBy) == 0 && wire.IsNeighborDiscovery(f.bytes, p) {
		return None
	}
	if wire.ShortChain(f.bytes, p) {
		return ShortChain
	}
	flow := wire.FlowOf(f.bytes, p)
	switch rule := sa.FirstFor(r.policy, &flow); {
	case rule == nil && len(f.carriedBy) == 0:
		return NoPolicy
	case rule == nil || rule.Action == sa.Bypass:
		return None
	case rule.Action == sa.Discard:
		return Discard
	default:
		return f.checkProtected(rule)
	}
}

// checkProtected reports whether one of the SAs that carried the packet is the
// rule's.
func (f *frame) checkProtected(rule *sa.Policy) Reason {
	if len(f.carriedBy) == 0 {
		return Clear
	}
	for _, a := range f.carriedBy {
		if rule.SA == "" || a.Name == rule.SA {
			return None
		}
	}
	return OtherSA
}
