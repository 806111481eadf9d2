package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// portion is applied as one: an SA, or the ESP and the AH of a bundle.
type portion struct {
	sas   []*sa.SA // innermost first
	first int      // index of the first one among all SAs
}

func (p *portion) mode() sa.Mode { return p.sas[0].Mode }

func (p *portion) has(name string) bool {
	return slices.ContainsFunc(p.sas, func(a *sa.SA) bool { return a.Name == name })
}

// carries reports whether the portion may be applied to the flow's packets.
func (p *portion) carries(f *wire.Flow) bool {
	for _, a := range p.sas {
		if !a.Selector.Matches(f) || a.Mode == sa.Transport && !ends(a.Src, a.Dst, f) {
			return false
		}
	}
	return true
}

// mayCarry reports whether some SA may be for a flow's packets, given what the flow shows.
func (a *associations) mayCarry(f *wire.Flow) bool {
	return f.Shown < wire.ShownAll && slices.ContainsFunc(a.all, func(s *sa.SA) bool {
		return s.Selector.MayMatch(f) && (s.Mode == sa.Tunnel || ends(s.Src, s.Dst, f))
	})
}

// after is the flow of what the portion makes of a packet.
func (p *portion) after(f wire.Flow) wire.Flow {
	last := p.sas[len(p.sas)-1]
	next := wire.Flow{Src: f.Src, Dst: f.Dst, Protocol: uint8(last.Protocol), Shown: wire.ShownAll}
	if last.Encap {
		next.Protocol = wire.ProtoUDP
		next.SrcPort, next.DstPort = last.EncapPorts()
	}
	if p.mode() == sa.Tunnel {
		next.Src, next.Dst = p.sas[0].Src, p.sas[0].Dst
	}
	return next
}

// stack is applied to a packet in this order, innermost first.
type stack []*portion

func (k stack) has(name string) bool {
	return slices.ContainsFunc(k, func(p *portion) bool { return p.has(name) })
}

func (k stack) carries(f wire.Flow) bool {
	for _, p := range k {
		if !p.carries(&f) {
			return false
		}
		f = p.after(f)
	}
	return true
}

// associations are all SAs and the ways in which they are applied.
type associations struct {
	all      []*sa.SA
	sealer   *Sealer           // of all, in the same order
	counters []*ledger.Counter // theirs
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
	if a.sealer, err = NewSealer(c.Random, a.all...); err != nil {
		return a, err
	}
	return a, a.draw(c)
}

// withSources gives tunnels without src one of our own addresses. The error names SAs that
// cannot be told apart.
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

// pair makes portions of SAs, joining each AH with the ESP that it names.
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

// stack finds the portions with these names. Either half names a bundle, or both.
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

// draw makes each SA take its numbers from the ledger, which continues those used before
// under the same key. They begin at c.First, if that is given.
func (a *associations) draw(c *Config) error {
	counters := map[string]*ledger.Counter{}
	for _, s := range c.SAs { // as configured: a tunnel may have got its src from us
		if c.First>>32 != 0 && !s.ESN {
			return fmt.Errorf("outbound: first sequence number: %s has no ESN, expected 32 bits", s.Name)
		}
		counters[s.Name] = c.Ledger.Counter(s)
	}
	for i, s := range a.all {
		counters[s.Name].Raise(c.First)
		a.counters = append(a.counters, counters[s.Name])
		a.sealer.SetNumbers(i, counters[s.Name])
	}
	return nil
}
