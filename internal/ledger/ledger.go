// Package ledger owns what must live as long as an SA's key: the inbound window, how much
// of the lifetime is used, and the next outbound number. Under one key no number may be
// sent twice, or taken twice (RFC 4303 sections 3.3.3 and 3.4.3, RFC 4106 section 3.1),
// however often a configuration drops the SA and brings it back.
//
// New makes a Ledger that lives until the process ends. Open makes one that lives in a
// file, too, where it is always ahead: the disk says how far numbers may have been used
// (lease.go). So a program that is killed continues after everything that it can have used,
// and loses at most the numbers of a lease.
//
// It knows SAs by fingerprints and holds no key. It does not know which SAs are configured,
// and decides nothing about frames but whether a number may be used.
package ledger

import (
	"sync"
	"time"

	"tapsec/internal/replay"
	"tapsec/sa"
)

// Ledger is the memory. Several goroutines may use it.
type Ledger struct {
	// Clock is the clock of lifetimes, the time since some beginning. New and Open set
	// it to CLOCK_BOOTTIME, which nobody sets and which runs while the machine is
	// suspended. It may be changed before first use.
	Clock func() time.Duration

	mu       sync.Mutex
	inbound  map[name]*Inbound
	counters map[name]*Counter

	traces    map[name]trace    // of keys that no SA has any more
	outTraces map[name]outTrace //

	keeper *keeper // nil: in memory alone
}

// New makes a ledger that lives as long as the process.
func New() *Ledger {
	return &Ledger{Clock: boottime, inbound: map[name]*Inbound{}, counters: map[name]*Counter{},
		traces: map[name]trace{}, outTraces: map[name]outTrace{}}
}

// Inbound is what is known of an inbound SA, which protocol, SPI, addresses, suite and keys
// identify. One that is not known yet begins now.
func (l *Ledger) Inbound(s *sa.SA) *Inbound {
	l.mu.Lock()
	defer l.mu.Unlock()
	in, id := l.find(s)
	if in == nil {
		in = &Inbound{window: replay.Of(s), began: l.Clock()}
		l.enter(in, id)
	}
	ask(in, s)
	return in
}

// find is what is known of an inbound SA, or nil; mu is held.
func (l *Ledger) find(s *sa.SA) (*Inbound, name) {
	id := fingerprint(s)
	if in := l.inbound[id]; in != nil {
		return in, id
	}
	return l.back(id), id
}

func (l *Ledger) enter(in *Inbound, id name) {
	in.init(l, id)
	l.inbound[id] = in
}

// Counter gives the numbers of an outbound SA. If repeating one would break the cipher, the
// key alone identifies the counter, whatever SA has it; otherwise protocol, SPI, addresses,
// suite and keys do. It begins after the number that a running SA was taken over with.
func (l *Ledger) Counter(s *sa.SA) *Counter {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := counterFingerprint(s)
	c := l.counters[id]
	if c == nil {
		if c = l.backCounter(id); c == nil {
			c = &Counter{next: 1}
		}
		c.init(l, id)
		l.counters[id] = c
	}
	c.Raise(s.FirstNumber())
	ask(c, s)
	return c
}

// Marks remembers ESN marks for a NIC that completes numbers by itself. Several goroutines
// may use it.
type Marks struct {
	ledger *Ledger
	mu     sync.Mutex
	known  map[name]*sa.Mark
}

// Marks makes a memory without marks.
func (l *Ledger) Marks() *Marks { return &Marks{ledger: l, known: map[name]*sa.Mark{}} }

// Of returns the mark that an SA had before. A new one begins where the inbound side is. Without
// ESN a mark remembers nothing, and nothing is remembered of it.
func (ms *Marks) Of(s *sa.SA) *sa.Mark {
	if !s.ESN {
		return sa.NewMark(s)
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	l := ms.ledger
	l.mu.Lock()
	in, id := l.find(s)
	l.mu.Unlock()
	m := ms.known[id]
	if m == nil || m.T() == 0 { // nothing was authenticated: the SA's own numbers count
		m = sa.NewMark(s)
		ms.known[id] = m
	}
	m.Authenticated(s.Seq)
	if in != nil {
		m.Authenticated(in.Window().Top)
	}
	return m
}

// Dropped forgets the mark of a deleted SA if it tells nothing: adding SAs for ever then
// leaves only what was used.
func (ms *Marks) Dropped(s *sa.SA, m *sa.Mark) {
	if !s.ESN {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if id := fingerprint(s); m.T() == 0 && ms.known[id] == m {
		delete(ms.known, id)
	}
}
