//go:build linux

package appliance

import (
	"maps"
	"net/netip"
	"slices"

	"tapsec/internal/outbound"
	"tapsec/sa"
)

// sides knows each SA's direction, and remembers it: otherwise, if the stack lost an
// address for a moment, an outbound SA would become inbound, and its packets would leave
// in clear.
//
// A direction that the SA names is final. Otherwise it is inbound if it goes to one of our
// addresses, or to any address, and outbound if it comes from one of ours. Any other SA is
// a gateway's: outbound as soon as we have an address of its family that is valid beyond
// the link. Until then it is undecided: it opens what arrives, and what it might seal is
// held back.
type sides struct {
	decided map[fingerprint]decision
	held    map[outbound.Held]bool // all that was ever protected
}

type decision struct {
	outbound bool
	sure     bool // further addresses do not change it
}

// division is a configuration's SAs by direction.
type division struct {
	inbound, outbound, undecided [][]*sa.SA
	decided                      map[fingerprint]decision // what is to be remembered of them
}

func newSides() sides { return sides{map[fingerprint]decision{}, map[outbound.Held]bool{}} }

// divide sorts SAs by direction, given our addresses. final says that there will be no
// others, as when the configuration names them. It is remembered once keep is called.
func (s *sides) divide(bundles [][]*sa.SA, local []netip.Addr, final bool) (d division) {
	d.decided = map[fingerprint]decision{}
	for _, bundle := range bundles {
		one, known := s.decide(bundle[0], local, final)
		switch {
		case !known:
			d.undecided = append(d.undecided, bundle)
		case one.outbound:
			d.outbound = append(d.outbound, bundle)
		default:
			d.inbound = append(d.inbound, bundle)
		}
		if known && bundle[0].Direction == sa.AnyDirection {
			d.decided[fingerprintOf(bundle[0].ID())] = one
		}
	}
	return d
}

func (s *sides) decide(a *sa.SA, local []netip.Addr, final bool) (_ decision, known bool) {
	if a.Direction != sa.AnyDirection {
		return decision{outbound: a.Direction == sa.Outbound, sure: true}, true
	}
	was, known := s.decided[fingerprintOf(a.ID())]
	switch {
	case final:
		return decision{outbound: a.Dst.IsValid() && !slices.Contains(local, a.Dst)}, true
	case was.sure:
		return was, true
	case !a.Dst.IsValid() || slices.Contains(local, a.Dst):
		return decision{sure: true}, true
	case a.Src.IsValid() && slices.Contains(local, a.Src):
		return decision{outbound: true, sure: true}, true
	}
	beyond := func(l netip.Addr) bool { return l.Is4() == a.Dst.Is4() && !l.IsLinkLocalUnicast() }
	return decision{outbound: true}, known || slices.ContainsFunc(local, beyond)
}

// protects adds what these SAs and rules protect to what earlier ones protected. If use
// names the SAs to seal with, the others protect nothing.
func (s *sides) protects(policy []sa.Policy, d *division, use [][]string) []outbound.Held {
	more, named := map[outbound.Held]bool{}, slices.Concat(use...)
	for _, bundles := range [][][]*sa.SA{d.outbound, d.undecided} {
		for _, bundle := range bundles {
			for _, a := range bundle {
				if h := outbound.HeldSA(a); !s.held[h] && (len(use) == 0 || slices.Contains(named, a.Name)) {
					more[h] = true
				}
			}
		}
	}
	for i := range policy {
		if h := (outbound.Held{Match: policy[i].Match}); !s.held[h] && policy[i].Action != sa.Bypass {
			more[h] = true
		}
	}
	return slices.Collect(maps.Keys(more))
}

// keep remembers a division that is in force, and holds back, from now on, what these protected.
func (s *sides) keep(d *division, more []outbound.Held) {
	maps.Copy(s.decided, d.decided)
	d.decided = nil
	for _, h := range more {
		s.held[h] = true
	}
}
