package outbound

import (
	"cmp"
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
	places   map[string]int // of all, by name
	ids      map[sa.ID]bool // as they were given
	use      []stack
}

// associate readies the SAs of a configuration. What old has, unchanged, keeps its
// ciphers.
func associate(c *Config, old *associations) (a associations, err error) {
	a = associations{places: make(map[string]int, len(c.SAs)), ids: make(map[sa.ID]bool, len(c.SAs))}
	if a.sealer = old.sealer; a.sealer == nil {
		a.sealer, err = NewSealer(c.Random)
	} else {
		a.sealer = &Sealer{id: old.sealer.id}
	}
	if err != nil {
		return a, err
	}
	more, err := a.ready(c, c.SAs, old.layer)
	if err != nil {
		return a, err
	}
	a.take(more)
	for _, names := range c.Use {
		k, err := a.stack(names)
		if err != nil {
			return a, err
		}
		a.use = append(a.use, k)
	}
	return a, nil
}

// layer is that of the SA of a name; nil where there is none.
func (a *associations) layer(name string) *layer {
	if i, ok := a.places[name]; ok {
		return a.sealer.layers[i]
	}
	return nil
}

// addition is further SAs that are ready to be used.
type addition struct {
	given    []*sa.SA
	all      []*sa.SA // in the order in which they get their places
	portions []*portion
	layers   []*layer
	counters []*ledger.Counter
}

// ready makes portions, ciphers and counters of further SAs. It changes nothing but
// the ledger.
func (a *associations) ready(c *Config, sas []*sa.SA, had func(name string) *layer) (more addition, err error) {
	more.given = sas
	with, err := a.withSources(c, sas)
	if err != nil {
		return more, err
	}
	if err := more.pair(with, len(a.all)); err != nil {
		return more, err
	}
	if more.layers, err = a.sealer.ready(c.Random, more.all, had); err != nil {
		return more, err
	}
	return more, more.draw(c)
}

// take puts SAs that are ready after those that are there. The layer of an SA that was there before may be sealing
// just now, and has its counter.
func (a *associations) take(more addition) {
	for i, s := range more.all {
		a.places[s.Name] = len(a.all) + i
		if l := more.layers[i]; l.numbers != source(more.counters[i]) {
			l.numbers = more.counters[i]
		}
	}
	for _, s := range more.given {
		a.ids[s.ID()] = true
	}
	a.all, a.counters = append(a.all, more.all...), append(a.counters, more.counters...)
	a.portions = append(a.portions, more.portions...)
	a.sealer.layers = append(a.sealer.layers, more.layers...)
}

// withSources gives tunnels without src one of our own addresses. The error names SAs that
// cannot be told apart.
func (a *associations) withSources(c *Config, given []*sa.SA) ([]*sa.SA, error) {
	sas := make([]*sa.SA, 0, len(given))
	names, ids := make(map[string]bool, len(given)), make(map[sa.ID]bool, len(given))
	for _, s := range given {
		_, named := a.places[s.Name]
		if id := s.ID(); named || a.ids[id] || names[s.Name] || ids[id] {
			return nil, fmt.Errorf("outbound: %s is there twice", s)
		}
		names[s.Name], ids[s.ID()] = true, true
		i := slices.IndexFunc(c.Local, func(l netip.Addr) bool { return l.Is4() == s.Dst.Is4() })
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
func (more *addition) pair(sas []*sa.SA, first int) error {
	beneath := map[string]*sa.SA{} // the SAs that others name
	for _, s := range sas {
		if s.Bundle != "" {
			beneath[s.Bundle] = nil
		}
	}
	for _, s := range sas {
		if _, named := beneath[s.Name]; named {
			beneath[s.Name] = s
		}
	}
	over := map[string]bool{}
	for _, s := range sas {
		if s.Bundle != "" && (beneath[s.Bundle] == nil || over[s.Bundle]) {
			return fmt.Errorf("outbound: %s: bundle: expected an SA %s that no other one names", s.Name, s.Bundle)
		}
		over[s.Bundle] = true
	}
	for _, s := range sas {
		if _, named := beneath[s.Name]; named {
			continue
		}
		p := &portion{first: first + len(more.all)}
		if s.Bundle != "" {
			p.sas = append(p.sas, beneath[s.Bundle])
		}
		p.sas = append(p.sas, s)
		more.all = append(more.all, p.sas...)
		more.portions = append(more.portions, p)
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
	i, ok := a.places[name]
	if !ok {
		return nil
	}
	at, _ := slices.BinarySearchFunc(a.portions, i+1, func(p *portion, place int) int { return cmp.Compare(p.first, place) })
	return a.portions[at-1]
}

// release leaves the counters that no SA has any more. SAs may share one.
func (a *associations) release(c *Config, had []*ledger.Counter) {
	if len(had) == 0 {
		return
	}
	have := make(map[*ledger.Counter]bool, len(a.counters))
	for _, counter := range a.counters {
		have[counter] = true
	}
	for _, counter := range had {
		if !have[counter] {
			c.Ledger.LeaveCounter(counter)
		}
	}
}

// draw makes each SA take its numbers from the ledger, which continues those used before
// under the same key. They begin at c.First, if that is given.
func (more *addition) draw(c *Config) error {
	counters := make(map[string]*ledger.Counter, len(more.given))
	for _, s := range more.given { // a tunnel may have got its src from us
		if c.First>>32 != 0 && !s.ESN {
			return fmt.Errorf("outbound: first sequence number: %s has no ESN, expected 32 bits", s.Name)
		}
		counters[s.Name] = c.Ledger.Counter(s)
	}
	for _, s := range more.all {
		counters[s.Name].Raise(c.First)
		more.counters = append(more.counters, counters[s.Name])
	}
	return nil
}
