// Package outbound is the sending side of a host: it seals what a plain stack sends, by
// policy and SAs (RFC 4301 section 5.1).
//
// A Sender takes whole Ethernet frames from the stack, and sends each in clear, sealed or
// in sealed fragments, or drops it. A packet that would be too long once sealed is answered
// with the ICMP error that a router would send. ARP, neighbour discovery, multicast,
// broadcast and link-local traffic stay in clear, whatever the policy says.
//
// It picks SAs (select.go) and minds the MTU (mtu.go, icmp.go). The Sealer beneath
// (sealer.go) turns one packet into a sealed one and knows nothing of the rest.
//
// It keeps no lifetimes and does no I/O. It does not reassemble, and transport mode takes
// no fragments: if the stack makes some, as it does of UDP once it knows the MTU, they have
// to be put together before.
package outbound

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tapsec/internal/audit"
	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// Config is what a Sender needs. Only MTU has to be there.
type Config struct {
	SAs    []*sa.SA                 // outbound, oldest first; an AH over an ESP names it (Bundle)
	Policy []sa.Policy              // the first match decides
	Held   []Held                   // what must not leave in clear although nothing seals it
	Use    [][]string               // stacks of SAs by name, innermost first; none: see Sender
	Local  []netip.Addr             // our own; the first of an IP version is the src of its tunnels without one
	Joined bool                     // the stack's fragments have been put together
	MTU    int                      // of the wire in bytes, without the Ethernet header
	Socket bool                     // the wire is a packet socket, which counts VLAN tags against the MTU
	Ledger *ledger.Ledger           // where numbers live; nil: in the Sender
	First  uint64                   // first sequence number of each SA; 0 leaves it to oseq and seq_high, else 1
	Reply  func(frame []byte) error // takes ICMP errors for the stack; the frame is valid until it returns
	Audit  func(Event)              // told of drops, at a bounded rate; must not wait
}

// Held names packets that are held back while no SA seals them and no rule of the policy
// concerns them: they were protected a moment ago, or will be soon.
type Held struct {
	Match    sa.Selector
	Src, Dst netip.Addr // of an SA in transport mode, if it has any
}

// HeldSA names the packets that an SA carries.
func HeldSA(a *sa.SA) (h Held) {
	if a.Selector != nil {
		h.Match = *a.Selector
	}
	if a.Mode == sa.Transport {
		h.Src, h.Dst = a.Src, a.Dst
	}
	return h
}

// Sender seals what a stack sends. One goroutine may call Batch, others the other methods
// meanwhile, but not from Reply. Batch sends an SA's numbers in order, which is why a
// Sender serves one queue.
//
// Which SAs a packet gets:
//
//  1. The first rule of the policy that matches says bypass (clear), discard, or
//     protect. Match.Dst is where the packet goes.
//  2. Candidates are the stacks of Use, in their order. A rule that names an SA
//     takes those that contain it.
//  3. Without Use, a rule that names an SA takes that one, with the other half of
//     its bundle. Otherwise the transport-mode SA that may carry the packet is
//     taken, and around it the tunnel that may carry the result; of several the last.
//  4. An SA may carry what its selector matches: the packet that it is applied to
//     (RFC 4301 section 5.2 asks the same of the receiver). In transport mode the
//     addresses must be its own, too.
//  5. Without a candidate the packet is dropped if a rule says protect. If no rule
//     matched, it is sent in clear, unless it is held back, or shows too little to
//     rule out that some SA would carry it.
type Sender struct {
	changing sync.Mutex // held by changes of SAs, and taken before mu

	mu      sync.Mutex
	ledger  *ledger.Ledger // of a Config without one
	config  Config
	selects bool // rules or selectors look at packets
	sas     associations
	rules   space[*sa.Policy]
	held    space[*Held]
	ended   map[end]bool // reported so far
	paths   map[sa.ID]*path
	routes  routes
	counts  [NumReasons]uint64
	id      uint32                // of the latest IPv6 fragments, from anywhere (RFC 7739)
	limit   audit.Limiter[string] // bounds what Audit is told

	// The batch in work.
	buf []byte   // memory of the frames in out that are not the caller's
	out [][]byte //
	by  string   // names of the SAs of the frame in work

	answers answers
}

// The MTUs in bytes that New accepts. Every IPv4 host takes the least one (RFC 791).
const (
	minMTU = 576
	maxMTU = 65535
)

// New makes a Sender. An error names the SA or the field, and what is wrong.
func New(c Config) (*Sender, error) {
	s := &Sender{id: rand.Uint32(), ledger: ledger.New(), ended: map[end]bool{}, paths: map[sa.ID]*path{}}
	if err := s.Replace(c); err != nil {
		return nil, err
	}
	return s, nil
}

// Replace changes the configuration between two batches, which do not wait for keys to be
// set up. Sequence numbers go on if the ledger knows the key. On an error nothing has
// changed.
func (s *Sender) Replace(c Config) error {
	if c.MTU < minMTU || c.MTU > maxMTU {
		return errMTU
	}
	c.Ledger = cmp.Or(c.Ledger, s.ledger)
	s.changing.Lock()
	defer s.changing.Unlock()
	next, changed, err := s.next(&c)
	if err != nil {
		return err
	}
	rules, held := rulesOf(c.Policy), space[*Held]{}
	hold(&held, c.Held)
	c.SAs, c.Held = nil, nil // they are there now
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.sas.names
	s.config, s.sas, s.rules, s.held = c, next, rules, held
	s.restorePaths()
	s.settle()
	if changed {
		s.exchange(next.names, gone)
	}
	return nil
}

// exchange tells the ledger which SAs have their counters now, and which had.
func (s *Sender) exchange(now, before map[string]*association) {
	for _, a := range now {
		a.counter.Hold()
	}
	for _, a := range before {
		s.config.Ledger.LeaveCounter(a.counter)
	}
}

// next is the associations of a configuration, and whether these are not those in use.
func (s *Sender) next(c *Config) (next associations, changed bool, err error) {
	had := &s.config
	if s.sas.are(c.SAs) && had.Ledger == c.Ledger && had.First == c.First && slices.Equal(had.Local, c.Local) && slices.EqualFunc(had.Use, c.Use, slices.Equal) {
		return s.sas, false, nil
	}
	next, err = associate(c, &s.sas)
	return next, true, err
}

// rulesOf are a policy's rules, of which the latest that matches is the first.
func rulesOf(policy []sa.Policy) (rules space[*sa.Policy]) {
	nodes := make([]node[*sa.Policy], len(policy))
	for i := range slices.Backward(policy) {
		nodes[i].value, nodes[i].age = &policy[i], uint64(len(policy)-i)
		from, to := addressesOf(&policy[i].Match, netip.Addr{}, netip.Addr{})
		rules.add(&nodes[i], from, to)
	}
	return rules
}

// hold adds to what is held back.
func hold(held *space[*Held], more []Held) {
	nodes := make([]node[*Held], len(more))
	for i := range more {
		nodes[i].value = &more[i]
		from, to := addressesOf(&more[i].Match, more[i].Src, more[i].Dst)
		held.add(&nodes[i], from, to)
	}
}

// settle follows a change of what packets are sealed by.
func (s *Sender) settle() {
	s.selects = s.rules.n > 0 || s.held.n > 0 || s.sas.selecting > 0
	s.routes.forget()
}

// Add takes further SAs and what is held back because of them, between two batches.
// It costs what they cost. On an error nothing has changed.
func (s *Sender) Add(sas []*sa.SA, held []Held) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	more, err := s.sas.ready(&s.config, sas, nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sas.take(more)
	hold(&s.held, held)
	for _, a := range more.all {
		a.counter.Hold()
		s.restorePath(a)
	}
	s.settle()
	return nil
}

// Delete takes SAs out, and the other halves of their bundles, between two batches, and returns
// how many portions these were. It costs what they cost. What they protected is held back only
// if the configuration says so. The error says that a stack of Use has one; then nothing has
// changed.
func (s *Sender) Delete(sas []*sa.SA) (n int, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range sas {
		if had := s.sas.names[a.Name]; had != nil && had.given == a && s.sas.uses(had) {
			return 0, noUse(a.Name)
		}
	}
	for _, a := range sas {
		if had := s.sas.names[a.Name]; had != nil && had.given == a {
			for _, half := range had.portion.sas {
				s.sas.drop(half)
				s.config.Ledger.LeaveCounter(half.counter)
			}
			n++
		}
	}
	if n > 0 {
		s.settle()
	}
	return n, nil
}

var errMTU = errors.New("outbound: the wire's MTU must be 576 to 65535 bytes")

// Batch handles the frames of one batch in order and returns what goes to the wire, fewer
// frames or more. Those in clear are the caller's own; the others are valid until the next
// call.
func (s *Sender) Batch(frames [][]byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf, s.out = s.buf[:0], s.out[:0]
	s.answers.now = time.Time{}
	for _, f := range frames {
		reason := s.one(f)
		s.counts[reason]++
		if reason.Dropped() {
			s.drop(f, reason)
		}
	}
	return s.out
}

// one handles a frame.
//
//  1. What is not an IP packet, or is the link's own, passes.
//  2. Find its SAs, if any.
//  3. Seal it, unless it leaves in clear.
//  4. If it is too long for the wire, see mtu.go.
func (s *Sender) one(frame []byte) Reason {
	s.by = ""
	etherType, l3, ok := wire.Ethernet(frame)
	version := wire.IPVersion(etherType)
	switch {
	case !ok || wire.MayHideIP(etherType, frame[l3:]):
		return Hidden
	case version == 0:
		return s.pass(frame, NotIP)
	}
	p, err := wire.ParseIP(frame, l3, len(frame), version)
	switch {
	case err != nil && p.Fragment && !p.Later:
		return ShortChain
	case err != nil || p.Short || p.Jumbo:
		return Malformed
	case isLink(frame, &p):
		return s.pass(frame, Link)
	case s.selects && wire.ShortChain(frame, &p):
		return ShortChain
	}
	r, mtu := s.route(wire.FlowOf(frame, &p)), s.config.MTU-s.tags(frame, &p)
	s.by = r.name
	switch {
	case r.fate.Dropped():
		return r.fate
	case r.endToEnd && p.Fragment:
		return Fragment
	case p.End-p.Start > r.fit(&p, mtu):
		return s.tooLong(frame, &p, r, mtu)
	case r.fate != Sealed:
		return s.pass(frame, r.fate)
	}
	sealed, reason := s.seal(frame, &p, r)
	if reason != Sealed {
		return reason
	}
	return s.pass(sealed, Sealed)
}

// pass sends a frame.
func (s *Sender) pass(frame []byte, r Reason) Reason {
	s.out = append(s.out, frame)
	return r
}

// seal appends the sealed frame to buf, and makes p describe its packet. MAC addresses and tags
// stay.
func (s *Sender) seal(frame []byte, p *wire.Packet, r *route) ([]byte, Reason) {
	start, l3 := len(s.buf), p.Start
	s.buf = append(s.buf, frame[:l3]...)
	packet := frame[p.Start:p.End]
	p.Move(-l3)
	buf, err := r.sealer.seal(s.buf, packet, p)
	p.Move(l3)
	if err != nil {
		s.buf = s.buf[:start]
		reason := failure(err)
		if reason == NumbersUsed {
			s.audit(r)
		}
		return nil, reason
	}
	s.buf = buf
	sealed := buf[start:len(buf):len(buf)]
	be.PutUint16(sealed[l3-2:], wire.EtherTypeOf(p.Version))
	return sealed, r.fate
}

func failure(err error) Reason {
	switch err {
	case ledger.ErrUsedUp:
		return NumbersUsed
	case ledger.ErrLease:
		return NoLease
	case ErrTooLong:
		return TooLong
	}
	return Unsealable
}

// isLink reports whether a packet concerns the link and goes no further:
// multicast, broadcast, link-local addresses, neighbour discovery.
func isLink(frame []byte, p *wire.Packet) bool {
	return p.Dst.IsMulticast() || p.Dst == broadcast || p.Dst.IsLinkLocalUnicast() || p.Src.IsLinkLocalUnicast() ||
		wire.IsNeighborDiscovery(frame, p)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// State is what can be seen of one SA at run time.
type State struct {
	*sa.SA
	Next uint64 // sequence number of its next packet, 64 bits with ESN
}

// States lists the SAs.
func (s *Sender) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []State
	for _, a := range slices.SortedFunc(maps.Values(s.sas.names), func(a, b *association) int { return cmp.Compare(a.node.age, b.node.age) }) {
		all = append(all, State{a.SA, a.counter.Peek()})
	}
	return all
}

// Counts are the frames by reason, and what is counted beside them, as of the latest batch.
func (s *Sender) Counts() [NumReasons]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}
