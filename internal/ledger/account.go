package ledger

import (
	"sync"
	"time"

	"tapsec/sa"
)

// account is what Inbound and Counter have in common: a name and a lease of numbers.
type account struct {
	mu     sync.Mutex
	keeper *keeper // nil: in memory only, and a lease has no end
	id     string  // fingerprint
	about  string  // the SA, for people
	asked  bool    // in use in this process, so it is kept as long as that lives
	left   bool    // no SA has it any more: it takes and gives no number
	seen   time.Time
	lease  lease
}

// holder is an account with what it is about.
type holder interface {
	base() *account
	used() uint64                                     // the highest number used; mu is held
	record(now time.Time, clock time.Duration) record // what goes to disk; mu is held
}

func (a *account) base() *account { return a }

func (a *account) init(l *Ledger, id string) { a.keeper, a.id = l.keeper, id }

// ask notes that an SA is configured, and gets it a lease before its first number needs
// one.
func ask(h holder, s *sa.SA) {
	a := h.base()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = true
	if a.keeper == nil {
		return
	}
	if a.about = s.ID().String(); !a.lease.granted {
		a.keeper.want(h)
	}
}

// covers reports whether the lease allows number n.
func (a *account) covers(n uint64) bool {
	return a.keeper == nil || a.lease.granted && n <= a.lease.upTo
}

// promised is the bound of the numbers in use that the disk shall have; ok is false if it
// shall have exactly what was used.
func (a *account) promised(used uint64) (upTo uint64, ok bool) {
	l := &a.lease
	return max(l.upTo, l.pending, used), l.granted || l.pending != 0
}

// line begins a record.
func (a *account) line(now time.Time) record {
	if a.asked {
		a.seen = now
	}
	return record{SA: a.about, Seen: seenAt(a.seen)}
}

// spent asks for the lease to be renewed once half of it is used; mu is held.
func spent(h holder) {
	if a := h.base(); a.keeper != nil && a.lease.half(h.used()) {
		a.keeper.want(h)
	}
}
