package outbound

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// association is an SA with what belongs to it.
type association struct {
	*sa.SA         // as it is applied: a tunnel may have got its src from us
	given   *sa.SA // as it was given
	layer   *layer
	counter *ledger.Counter
	portion *portion
	node    node[*association] // its place among those of its mode
	next    *association       // with the same hash of SPI and destination
}

// portion is applied as one: an SA, or the ESP and the AH of a bundle.
type portion struct {
	sas []*association // innermost first
}

func (p *portion) mode() sa.Mode { return p.sas[0].Mode }

func (p *portion) has(name string) bool {
	return slices.ContainsFunc(p.sas, func(a *association) bool { return a.Name == name })
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
	if f.Shown == wire.ShownAll {
		return false
	}
	return a.transport.matches(f, func(s *association) bool { return s.Selector.MayMatch(f) && ends(s.Src, s.Dst, f) }) ||
		a.tunnel.matches(f, func(s *association) bool { return s.Selector.MayMatch(f) })
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

// associations are all SAs and the ways in which they are applied. Each is found in a time
// that does not depend on how many there are.
type associations struct {
	sealer            *Sealer // without layers: makes those of SAs
	names             map[string]*association
	ids               map[uint64]*association // the first with each hash of SPI and destination
	transport, tunnel space[*association]     // by mode
	latest            uint64                  // age
	selecting         int                     // SAs with a selector
	use               []stack
}

// associate readies the SAs of a configuration. What old has, unchanged, keeps its
// ciphers.
func associate(c *Config, old *associations) (a associations, err error) {
	a = associations{names: map[string]*association{}, ids: map[uint64]*association{}}
	if a.sealer = old.sealer; a.sealer == nil {
		a.sealer, err = NewSealer(nil)
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
	if s := a.names[name]; s != nil {
		return s.layer
	}
	return nil
}

// endHash is that of what a router's report tells of an SA.
func endHash(spi uint32, dst netip.Addr) uint64 {
	return sa.ID{SPI: sa.SPI(spi), Dst: dst}.Hash(seed)
}

// has reports whether there is an SA of that identity, as it was given.
func (a *associations) has(id sa.ID) bool {
	for s := a.ids[endHash(uint32(id.SPI), id.Dst)]; s != nil; s = s.next {
		if s.given.ID() == id {
			return true
		}
	}
	return false
}

// addition is further SAs that are ready to be used, in the order in which they are added.
type addition struct{ all []*association }

// ready makes portions, ciphers and counters of further SAs. It changes nothing but
// the ledger.
func (a *associations) ready(c *Config, sas []*sa.SA, had func(name string) *layer) (more addition, err error) {
	if err := a.checkUnique(sas); err != nil {
		return more, err
	}
	if err := more.pair(sas, c.Local); err != nil {
		return more, err
	}
	applied := make([]*sa.SA, len(more.all))
	for i, s := range more.all {
		applied[i] = s.SA
	}
	layers, err := a.sealer.ready(nil, applied, had)
	if err != nil {
		return more, err
	}
	for i, s := range more.all {
		s.layer = layers[i]
	}
	return more, more.draw(c)
}

// take puts SAs that are ready after those that are there. The layer of an SA that was there before may be sealing
// just now, and has its counter.
func (a *associations) take(more addition) {
	for _, s := range more.all {
		if s.layer.numbers != source(s.counter) {
			s.layer.numbers = s.counter
		}
		a.names[s.Name] = s
		hash := endHash(s.SPI, s.Dst)
		s.next, a.ids[hash] = a.ids[hash], s
		from, to := s.addresses()
		a.latest++
		s.node.value, s.node.age = s, a.latest
		a.space(s.Mode).add(&s.node, from, to)
		if s.Selector != nil {
			a.selecting++
		}
	}
}

// drop takes an SA out.
func (a *associations) drop(s *association) {
	delete(a.names, s.Name)
	hash := endHash(s.SPI, s.Dst)
	at := a.ids[hash]
	switch {
	case at == s && s.next == nil:
		delete(a.ids, hash)
	case at == s:
		a.ids[hash] = s.next
	default:
		for at.next != s {
			at = at.next
		}
		at.next = s.next
	}
	a.space(s.Mode).remove(&s.node)
	if s.Selector != nil {
		a.selecting--
	}
}

func (a *associations) space(m sa.Mode) *space[*association] {
	if m == sa.Transport {
		return &a.transport
	}
	return &a.tunnel
}

// addresses are those of the packets that the SA is applied to.
func (a *association) addresses() (from, to netip.Prefix) {
	if a.Mode == sa.Transport {
		return addressesOf(a.Selector, a.Src, a.Dst)
	}
	return addressesOf(a.Selector, netip.Addr{}, netip.Addr{})
}

// checkUnique names SAs that cannot be told apart, from each other or from those that are there.
func (a *associations) checkUnique(given []*sa.SA) error {
	for _, s := range given {
		if a.names[s.Name] != nil || a.has(s.ID()) {
			return fmt.Errorf("outbound: %s is there twice", s)
		}
	}
	if !sa.Repeat(given, func(s *sa.SA) uint64 { return maphash.String(seed, s.Name) }) && !sa.Repeat(given, func(s *sa.SA) uint64 { return s.ID().Hash(seed) }) {
		return nil
	}
	names, ids := map[string]bool{}, map[sa.ID]bool{}
	for _, s := range given {
		if names[s.Name] || ids[s.ID()] {
			return fmt.Errorf("outbound: %s is there twice", s)
		}
		names[s.Name], ids[s.ID()] = true, true
	}
	return nil
}

// newAssociation gives a tunnel without src one of our own addresses.
func newAssociation(s *sa.SA, local []netip.Addr) *association {
	a := &association{SA: s, given: s}
	i := slices.IndexFunc(local, func(l netip.Addr) bool { return l.Is4() == s.Dst.Is4() })
	if s.Mode == sa.Tunnel && !s.Src.IsValid() && i >= 0 {
		with := *s
		with.Src = local[i]
		a.SA = &with
	}
	return a
}

// pair makes portions of SAs, joining each AH with the ESP that it names.
func (more *addition) pair(sas []*sa.SA, local []netip.Addr) error {
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
		if s.Bundle == "" {
			continue
		}
		if beneath[s.Bundle] == nil || over[s.Bundle] {
			return fmt.Errorf("outbound: %s: bundle: expected an SA %s that no other one names", s.Name, s.Bundle)
		}
		over[s.Bundle] = true
	}
	for _, s := range sas {
		if _, named := beneath[s.Name]; named {
			continue
		}
		p := &portion{}
		if s.Bundle != "" {
			p.sas = append(p.sas, newAssociation(beneath[s.Bundle], local))
		}
		p.sas = append(p.sas, newAssociation(s, local))
		for _, a := range p.sas {
			a.portion = p
		}
		more.all = append(more.all, p.sas...)
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
			return nil, noUse(name)
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

func noUse(name string) error { return fmt.Errorf("outbound: use: there is no outbound SA %q", name) }

// uses reports whether a stack has an SA.
func (a *associations) uses(s *association) bool {
	return slices.ContainsFunc(a.use, func(k stack) bool { return slices.Contains(k, s.portion) })
}

func (a *associations) named(name string) *portion {
	if s := a.names[name]; s != nil {
		return s.portion
	}
	return nil
}

// are reports whether these are the SAs, as they are, in this order. A bundle is where its AH is.
func (a *associations) are(given []*sa.SA) bool {
	if len(given) != len(a.names) {
		return false
	}
	age := uint64(0)
	for _, s := range given {
		had := a.names[s.Name]
		if had == nil || had.given != s {
			return false
		}
		if last := had.portion.sas[len(had.portion.sas)-1]; last != had {
			continue
		}
		if had.node.age < age {
			return false
		}
		age = had.node.age
	}
	return true
}

// draw makes each SA take its numbers from the ledger, which continues those used before
// under the same key. They begin at c.First, if that is given.
func (more *addition) draw(c *Config) error {
	for _, s := range more.all {
		if c.First>>32 != 0 && !s.ESN {
			return fmt.Errorf("outbound: first sequence number: %s has no ESN, expected 32 bits", s.Name)
		}
		s.counter = c.Ledger.Counter(s.given) // a tunnel may have got its src from us
		s.counter.Raise(c.First)
	}
	return nil
}
