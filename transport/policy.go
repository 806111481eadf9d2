package transport

import (
	"tapsec/sa"
	"tapsec/wire"
)

// checkPolicy applies the policy to a packet that has arrived (RFC 4301 section 5.2). The
// first rule that concerns it decides. A packet that came through an SA needs no rule: the
// SA's selector has allowed it. The link's neighbour discovery passes like ARP, since
// nothing works without it. A fragment that hides what rules look at is dropped.
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

// checkProtected checks that one of the SAs that carried the packet is the rule's.
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
