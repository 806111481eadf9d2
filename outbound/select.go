package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tapsec/sa"
	"tapsec/seal"
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

// portion is what is applied as one: an SA, or the ESP and the AH of a bundle.
type portion struct {
	sas   []*sa.SA // innermost first
	first int      // the place of the first one among all SAs
}

func (p *portion) mode() sa.Mode { return p.sas[0].Mode }

func (p *portion) has(name string) bool {
	return slices.ContainsFunc(p.sas, func(a *sa.SA) bool { return a.Name == name })
}

// carries tells whether the portion may be applied to the flow's packets.
func (p *portion) carries(f *flow) bool {
	for _, a := range p.sas {
		if a.Selector != nil && !f.matches(a.Selector) {
			return false
		}
		if a.Mode == sa.Transport && (a.Dst.IsValid() && a.Dst != f.dst || a.Src.IsValid() && a.Src != f.src) {
			return false
		}
	}
	return true
}

// after is what the portion makes of a flow.
func (p *portion) after(f flow) flow {
	last := p.sas[len(p.sas)-1]
	next := flow{src: f.src, dst: f.dst, proto: uint8(last.Protocol)}
	if last.Encap {
		next.proto, next.known, next.srcPort, next.dstPort = wire.ProtoUDP, true, sa.EncapPort, sa.EncapPort
	}
	if p.mode() == sa.Tunnel {
		next.src, next.dst = p.sas[0].Src, p.sas[0].Dst
	}
	return next
}

// stack is applied to a packet in this order, innermost first.
type stack []*portion

func (k stack) has(name string) bool {
	return slices.ContainsFunc(k, func(p *portion) bool { return p.has(name) })
}

func (k stack) carries(f flow) bool {
	for _, p := range k {
		if !p.carries(&f) {
			return false
		}
		f = p.after(f)
	}
	return true
}

// associations are all SAs, and in which ways they are applied.
type associations struct {
	all      []*sa.SA
	sealer   *seal.Sealer // of all, in the same order
	portions []*portion
	use      []stack
}

// associate readies the SAs of a configuration.
func associate(c *Config) (associations, error) {
	sas, err := withSources(c)
	if err != nil {
		return associations{}, err
	}
	var a associations
	if err := a.pair(sas); err != nil {
		return a, err
	}
	for _, names := range c.Use {
		k, err := a.stack(names)
		if err != nil {
			return a, err
		}
		a.use = append(a.use, k)
	}
	if a.sealer, err = seal.New(c.Random, a.all...); err != nil {
		return a, fmt.Errorf("outbound: %w", err)
	}
	return a, a.begin(c.First)
}

// withSources gives tunnels without src one of our own addresses, and finds SAs
// that cannot be told apart.
func withSources(c *Config) ([]*sa.SA, error) {
	var sas []*sa.SA
	names, ids := map[string]bool{}, map[sa.ID]bool{}
	for _, s := range c.SAs {
		if names[s.Name] || ids[s.ID()] {
			return nil, fmt.Errorf("outbound: %s is there twice", s)
		}
		names[s.Name], ids[s.ID()] = true, true
		i := slices.IndexFunc(c.Local, func(a netip.Addr) bool { return a.Is4() == s.Dst.Is4() })
		if s.Mode == sa.Tunnel && !s.Src.IsValid() && i >= 0 {
			with := *s
			with.Src = c.Local[i]
			s = &with
		}
		sas = append(sas, s)
	}
	return sas, nil
}

// pair makes portions of SAs: an AH that names an ESP is one with it.
func (a *associations) pair(sas []*sa.SA) error {
	var bundled []*sa.SA
	for _, s := range sas {
		if s.Bundle == "" {
			continue
		}
		i := slices.IndexFunc(sas, func(e *sa.SA) bool { return e.Name == s.Bundle })
		if i < 0 || slices.Contains(bundled, sas[i]) {
			return fmt.Errorf("outbound: %s: bundle: expected an SA %s that no other one names", s.Name, s.Bundle)
		}
		bundled = append(bundled, sas[i])
	}
	for _, s := range sas {
		if slices.Contains(bundled, s) {
			continue
		}
		p := &portion{first: len(a.all)}
		if s.Bundle != "" {
			i := slices.IndexFunc(bundled, func(e *sa.SA) bool { return e.Name == s.Bundle })
			p.sas = append(p.sas, bundled[i])
		}
		p.sas = append(p.sas, s)
		a.all = append(a.all, p.sas...)
		a.portions = append(a.portions, p)
	}
	return nil
}

// stack finds the portions of these names. A bundle may be named by either half
// or by both.
func (a *associations) stack(names []string) (stack, error) {
	var k stack
	for _, name := range names {
		p := a.named(name)
		switch {
		case p == nil:
			return nil, fmt.Errorf("outbound: use: there is no outbound SA %q", name)
		case len(k) > 0 && k[len(k)-1] == p && len(p.sas) > 1:
			continue
		case slices.Contains(k, p):
			return nil, fmt.Errorf("outbound: use: %s is there twice in one stack", name)
		}
		k = append(k, p)
	}
	if len(k) == 0 {
		return nil, errors.New("outbound: use: a stack needs an SA")
	}
	return k, nil
}

func (a *associations) named(name string) *portion {
	for _, p := range a.portions {
		if p.has(name) {
			return p
		}
	}
	return nil
}

// begin sets the first sequence number; an SA that has used it before stays
// where it is.
func (a *associations) begin(first uint64) error {
	for i, s := range a.all {
		if first>>32 != 0 && !s.ESN {
			return fmt.Errorf("outbound: first sequence number: %s has no ESN, expected 32 bits", s.Name)
		}
		a.sealer.SetNumber(i, max(first, a.sealer.Number(i)))
	}
	return nil
}

// succeed goes on with the numbers that were used under the same keys, whatever
// else the SA was: most suites make their IV of the number, and with a key an IV
// must never come twice (RFC 4106 section 3.1).
func (a *associations) succeed(old *associations) {
	for i, s := range a.all {
		for j, was := range old.all {
			if s.Suite == was.Suite && s.EncryptionKey.Equal(was.EncryptionKey) && s.IntegrityKey.Equal(was.IntegrityKey) {
				a.sealer.SetNumber(i, max(a.sealer.Number(i), old.sealer.Number(j)))
			}
		}
	}
}

// choose finds the SAs for a flow; name is the rule's, or empty. nil is none.
func (a *associations) choose(f flow, name string) stack {
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

// derive is a transport portion if one may carry the flow, and around it a tunnel
// if one may carry that.
func (a *associations) derive(f flow) stack {
	var k stack
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, p := range slices.Backward(a.portions) {
			if p.mode() == mode && p.carries(&f) {
				k, f = append(k, p), p.after(f)
				break
			}
		}
	}
	return k
}

// route is the way of a flow, found once.
type route struct {
	fate       Reason // Sealed, one of those in clear, or a drop
	sealer     *seal.Sealer
	transport  bool // the innermost SA is in transport mode
	fit4, fit6 int  // longest packet for the wire, headers without options or extensions
}

// maxRoutes bounds the flows remembered. Where there are more, all are forgotten
// and found anew.
const maxRoutes = 4096

func (s *Sender) route(frame []byte, p *wire.Packet) route {
	f := flowOf(frame, p)
	r, ok := s.routes[f]
	if !ok {
		if len(s.routes) >= maxRoutes {
			clear(s.routes)
		}
		r = s.resolve(f)
		s.routes[f] = r
	}
	return r
}

// fates are those of a packet that gets no SA, by what its rule says.
var fates = [...]Reason{NoSA, sa.Protect: NoSA, sa.Bypass: Bypassed, sa.Discard: Discarded}

// resolve follows the policy and picks SAs as Sender's comment says.
func (s *Sender) resolve(f flow) route {
	fate, name := Unprotected, ""
	for i := range s.config.Policy {
		if rule := &s.config.Policy[i]; f.concerns(rule) {
			fate, name = fates[rule.Action&3], rule.SA
			break
		}
	}
	var k stack
	if fate == Unprotected || fate == NoSA {
		if k = s.sas.choose(f, name); k != nil {
			fate = Sealed
		}
	}
	return s.sas.route(fate, k, s.config.MTU)
}

func (a *associations) route(fate Reason, k stack, mtu int) route {
	var places []int
	for _, p := range k {
		for i := range p.sas {
			places = append(places, p.first+i)
		}
	}
	sealer := a.sealer.Stack(places...)
	return route{
		fate: fate, sealer: sealer, transport: len(k) > 0 && k[0].mode() == sa.Transport,
		fit4: sealer.Fit(mtu, ipv4Len), fit6: sealer.Fit(mtu, ipv6Len),
	}
}
