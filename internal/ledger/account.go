package ledger

import (
	"sync"
	"time"

	"tapsec/sa"
)

// account is what Inbound and Counter have in common: a name and, with a file, a lease of
// numbers.
type account struct {
	mu      sync.Mutex
	id      name
	last         // asked: in use in this process, so it is kept as long as that lives
	left    bool // no SA has it any more: it takes and gives no number
	holders int32
	*onDisk // nil: in memory only, and numbers have no end
}

// onDisk is what there is of an account for the file's sake.
type onDisk struct {
	keeper *keeper
	about  string // the SA, for people
	lease  lease
}

// holder is an account with what it is about.
type holder interface {
	base() *account
	used() uint64                                     // the highest number used; mu is held
	record(now time.Time, clock time.Duration) record // what goes to disk; mu is held
}

func (a *account) base() *account { return a }

func (a *account) init(l *Ledger, id name) {
	if a.id = id; l.keeper != nil && a.onDisk == nil {
		a.onDisk = &onDisk{keeper: l.keeper}
	}
}

// ask notes that an SA is configured, and gets it a lease before its first number needs
// one.
func ask(h holder, s *sa.SA) {
	a := h.base()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = true
	if a.onDisk == nil {
		return
	}
	if a.about = s.ID().String(); !a.lease.granted {
		a.keeper.want(h)
	}
}

// covers reports whether the lease allows number n.
func (a *account) covers(n uint64) bool {
	return a.onDisk == nil || a.lease.granted && n <= a.lease.upTo
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
		a.seen = uint32(now.Unix())
	}
	return record{SA: a.about, Seen: seenAt(time.Unix(int64(a.seen), 0))}
}

// spent asks for the lease to be renewed once half of it is used; mu is held.
func spent(h holder) {
	if a := h.base(); a.onDisk != nil && a.lease.half(h.used()) {
		a.keeper.want(h)
	}
}
