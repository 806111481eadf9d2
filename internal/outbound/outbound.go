// Package outbound is the sending side of a host: what a plain stack sends
// becomes what its SAs make of it on the wire (RFC 4301 section 5.1).
//
// A Sender takes whole Ethernet frames from the stack. Each one is sent in
// clear, sealed, cut into fragments, or dropped; a packet that is too long once
// sealed is answered with the ICMP error that a router on the way would send.
// ARP, neighbour discovery, multicast, broadcast and link-local traffic stay in
// clear, whatever the policy says.
//
// It picks SAs (select.go) and minds the MTU (mtu.go, icmp.go). The Sealer beneath
// (sealer.go) turns one packet into a sealed one and knows nothing of the rest.
//
// Outbound keeps no lifetimes and does no I/O. It reassembles nothing, and
// transport mode takes no fragments: where the stack makes some, as it does of
// UDP once it has been told the MTU, reassembly belongs in front.
package outbound

import (
	"errors"
	"io"
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
	Local  []netip.Addr             // our own; the first of its IP version is src of a tunnel that has none
	Joined bool                     // the stack's fragments come as the datagram that they make
	MTU    int                      // of the wire in bytes, without the Ethernet header
	Socket bool                     // the wire is a packet socket, which counts VLAN tags against the MTU
	Ledger *ledger.Ledger           // where numbers live; nil: in the Sender
	First  uint64                   // first sequence number of each SA; 0 leaves it to oseq and seq_high, else 1
	Reply  func(frame []byte) error // takes ICMP errors for the stack; the frame is valid until it returns
	Audit  func(Event)              // told of drops, at a bounded rate; must not wait
	Random io.Reader                // CBC's IVs; nil is crypto/rand
}

// Held names packets that are held back where no SA seals them and no rule of the
// policy speaks of them: they were protected a moment ago, or will be in a moment.
type Held struct {
	Match    sa.Selector
	Src, Dst netip.Addr // of an SA in transport mode, where it has any
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

// Sender seals what a stack sends. One goroutine may call Batch; the other
// methods may be called beside it, but not by Reply. Numbers leave an SA in the
// order of Batch, which is why a Sender is for one queue.
//
// Which SAs a packet gets:
//
//  1. The first rule of the policy that matches says bypass (clear), discard, or
//     protect. Match.Dst is where the packet goes.
//  2. Candidates are the stacks of Use, in their order. A rule that names an SA
//     takes those that contain it.
//  3. Without Use, a rule that names an SA takes that one, with the other half of
//     its bundle. Else it is the transport-mode SA that may carry the packet, then
//     around it the tunnel that may carry what came of that; of several the last.
//  4. An SA may carry what its selector matches: the packet that it is applied to
//     (RFC 4301 section 5.2 asks the same of the receiver). In transport mode the
//     addresses must be its own, too.
//  5. Without candidate the packet is dropped if a rule says protect. If no rule
//     matched, it is sent in clear, unless it is held back, or shows too little to
//     tell whether some SA would carry it.
type Sender struct {
	mu      sync.Mutex
	ledger  *ledger.Ledger // of a Config without one
	config  Config
	selects bool // rules or selectors look at packets
	sas     associations
	ended   map[end]bool // said so far
	paths   map[sa.ID]*path
	routes  map[wire.Flow]route
	counts  [NumReasons]uint64
	id      uint32                // of the latest IPv6 fragments, from anywhere (RFC 7739)
	limit   audit.Limiter[string] // of what Audit is told, by reason and SAs

	// The batch in work.
	buf []byte   // what out holds that is not the caller's
	out [][]byte //
	by  string   // names of the SAs of the frame in work

	answers answers
}

// Lengths of MTU that New accepts in bytes. Any IPv4 host takes the least one
// (RFC 791).
const (
	minMTU = 576
	maxMTU = 65535
)

// New makes a Sender. An error names the SA or the field and what is wrong.
func New(c Config) (*Sender, error) {
	s := &Sender{id: rand.Uint32(), ledger: ledger.New(), ended: map[end]bool{}, paths: map[sa.ID]*path{}, routes: map[wire.Flow]route{}}
	if err := s.Replace(c); err != nil {
		return nil, err
	}
	return s, nil
}

// Replace puts another configuration in the place of the one before, between two
// batches, which wait for no key. Sequence numbers go on where the ledger knows the
// key. On an error nothing has changed.
func (s *Sender) Replace(c Config) error {
	if c.MTU < minMTU || c.MTU > maxMTU {
		return errMTU
	}
	if c.Ledger == nil {
		c.Ledger = s.ledger
	}
	next, err := associate(&c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config, s.sas = c, next
	s.restorePaths()
	s.selects = len(c.Policy) > 0 || len(c.Held) > 0 ||
		slices.ContainsFunc(c.SAs, func(a *sa.SA) bool { return a.Selector != nil })
	clear(s.routes)
	return nil
}

var errMTU = errors.New("outbound: the wire's MTU must be 576 to 65535 bytes")

// Batch handles the frames of one batch in order and returns what goes to the
// wire: fewer frames, or more. Those in clear are the caller's own, the others
// stand until the next call.
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
//  1. What is no IP packet, or keeps the link itself alive, passes.
//  2. Find its SAs, or that it has none.
//  3. Seal it, unless it is to be clear.
//  4. What is too long for the wire is mtu.go's.
func (s *Sender) one(frame []byte) Reason {
	s.by = ""
	etherType, l3, ok := wire.Ethernet(frame)
	version := uint8(4)
	switch {
	case !ok || wire.MayHideIP(etherType):
		return Hidden
	case etherType == wire.EtherIPv6:
		version = 6
	case etherType != wire.EtherIPv4:
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
	r, mtu := s.route(frame, &p), s.config.MTU-s.tags(frame, &p)
	s.by = r.name
	switch {
	case r.fate.Dropped():
		return r.fate
	case r.endToEnd && p.Fragment:
		return Fragment
	case p.End-p.Start > r.fit(&p, mtu):
		return s.tooLong(frame, &p, &r, mtu)
	case r.fate != Sealed:
		return s.pass(frame, r.fate)
	}
	sealed, reason := s.seal(frame, &p, &r)
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

// seal makes the sealed frame after what buf holds. MAC addresses and tags stay.
func (s *Sender) seal(frame []byte, p *wire.Packet, r *route) ([]byte, Reason) {
	start := len(s.buf)
	s.buf = append(s.buf, frame[:p.Start]...)
	buf, err := r.sealer.Seal(s.buf, frame[p.Start:p.End])
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
	etherType := uint16(wire.EtherIPv4)
	if sealed[p.Start]>>4 == 6 {
		etherType = wire.EtherIPv6
	}
	be.PutUint16(sealed[p.Start-2:], etherType)
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
	for i, a := range s.sas.all {
		all = append(all, State{a, s.sas.sealer.Number(i)})
	}
	return all
}

// Counts are the frames so far by reason, and what was counted beside them, as
// of the latest batch.
func (s *Sender) Counts() [NumReasons]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}
