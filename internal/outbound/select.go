package outbound

import (
	"net/netip"
	"strings"

	"tapsec/sa"
	"tapsec/wire"
)

// choose finds the SAs for a flow; name is the rule's SA, or empty. nil is none.
func (a *associations) choose(f wire.Flow, name string) stack {
	for _, k := range a.use {
		if (name == "" || k.has(name)) && k.carries(f) {
			return k
		}
	}
	switch {
	case len(a.use) > 0:
		return nil
	case name == "":
		return a.derive(f)
	}
	if p := a.named(name); p != nil && p.carries(&f) {
		return stack{p}
	}
	return nil
}

// derive takes a transport portion that may carry the flow, if any, and around it a tunnel
// that may carry the result, if any.
func (a *associations) derive(f wire.Flow) stack {
	var k stack
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		if n := a.space(mode).find(&f, func(s *association) bool { return s.portion.carries(&f) }); n != nil {
			k, f = append(k, n.value.portion), n.value.portion.after(f)
		}
	}
	return k
}

// route is what is done with a flow's packets, found once.
type route struct {
	fate       Reason // Sealed, a reason to send in clear, or a drop
	sealer     *Sealer
	name       string // of its SAs, innermost first
	sas        []*association
	endToEnd   bool // the innermost SA is in transport mode
	mtu        int  // of the wire, which fit4 and fit6 are for
	fit4, fit6 int  // longest packet without options or extension headers
}

// maxRoutes bounds the flows remembered. One more, and all are forgotten.
const maxRoutes = 4096

// routes are those of the flows so far. Packets come in runs of one flow.
type routes struct {
	known map[wire.Flow]*route
	flow  wire.Flow // the latest one
	route *route    // its route, nil if there is none
}

func (r *routes) forget() { *r = routes{known: map[wire.Flow]*route{}} }

func (s *Sender) route(f wire.Flow) *route {
	if s.routes.route != nil && s.routes.flow == f {
		return s.routes.route
	}
	r, ok := s.routes.known[f]
	if !ok {
		if len(s.routes.known) >= maxRoutes {
			s.routes.forget()
		}
		r = s.resolve(f)
		s.routes.known[f] = r
	}
	s.routes.flow, s.routes.route = f, r
	return r
}

// fates are those of a packet without SAs, by its rule's action.
var fates = [...]Reason{NoSA, sa.Protect: NoSA, sa.Bypass: Bypassed, sa.Discard: Discarded}

// resolve applies the policy and picks SAs, as Sender's comment says.
func (s *Sender) resolve(f wire.Flow) *route {
	fate, name := Unprotected, ""
	if n := s.rules.find(&f, func(rule *sa.Policy) bool { return rule.Concerns(&f) }); n != nil {
		fate, name = fates[n.value.Action], n.value.SA
	}
	var k stack
	if fate == Unprotected || fate == NoSA {
		if k = s.sas.choose(f, name); k != nil {
			fate = Sealed
		}
	}
	switch {
	case fate != Unprotected:
	case s.holds(&f):
		fate = HeldBack
	case s.sas.mayCarry(&f):
		fate = NoSA
	}
	return k.route(fate, s.config.MTU)
}

// holds reports whether a flow's packets are held back.
func (s *Sender) holds(f *wire.Flow) bool {
	return s.held.matches(f, func(h *Held) bool { return ends(h.Src, h.Dst, f) && h.Match.MayMatch(f) })
}

// ends reports whether a transport-mode SA's addresses match the flow's.
func ends(src, dst netip.Addr, f *wire.Flow) bool {
	return (!dst.IsValid() || dst == f.Dst) && (!src.IsValid() || src == f.Src)
}

func (k stack) route(fate Reason, mtu int) *route {
	var all []*association
	var names []string
	sealer := &Sealer{}
	for _, p := range k {
		for _, s := range p.sas {
			all, names, sealer.layers = append(all, s), append(names, s.Name), append(sealer.layers, s.layer)
		}
	}
	return &route{
		fate: fate, sealer: sealer, name: strings.Join(names, " "), sas: all, endToEnd: len(k) > 0 && k[0].mode() == sa.Transport,
		mtu: mtu, fit4: sealer.Fit(mtu, wire.IPv4Len), fit6: sealer.Fit(mtu, wire.IPv6Len),
	}
}
