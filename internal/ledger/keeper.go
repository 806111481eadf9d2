package ledger

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lookAgain = time.Second // how often large leases are checked, and a full disk is tried again

	// An SA is forgotten after so long without being configured, but only by a process
	// that has run for a while: a new one does not know yet what is configured.
	// The time of day tells how long, so such a process forgets nothing if that was set meanwhile.
	forgetful  = 90 * 24 * time.Hour
	knowsAfter = time.Hour
)

// unset is before every time of day that a clock has which was set since the machine started.
var unset = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// keeper writes leases, if possible before a frame has to wait. All that it writes at a
// time costs one wait for the disk.
type keeper struct {
	ledger *Ledger
	say    func(error)
	stop   chan struct{}
	done   chan struct{}
	wake   chan struct{} // holds one
	began  time.Time     // by a clock that is not set
	wall   time.Time     // and by the time of day
	clock  time.Duration // and by the ledger's

	listMu  sync.Mutex
	waiting []holder // for a lease

	mu      sync.Mutex // held while the disk is written to; taken before every other mutex
	journal *journal
	watched []holder // with leases larger than the least
	failing atomic.Bool
	err     error // of the latest write
	told    bool  // that it failed
	closed  bool
}

// Open makes a ledger that lives in a file, and locks the file for this process; if another
// has it, the error names that. A file that does not exist begins empty; one that makes no
// sense is an error that says what to do.
//
// When the file cannot be written to, say is called once with the error, from another
// goroutine, and with nil once it can be again. Meanwhile numbers beyond their leases are
// not used.
func Open(path string, say func(error)) (*Ledger, error) {
	l, err := open(path, say)
	if err == nil {
		go l.keeper.run()
	}
	return l, err
}

// open is Open, but the caller runs the keeper.
func open(path string, say func(error)) (*Ledger, error) {
	j, err := lockJournal(path)
	if err != nil {
		return nil, err
	}
	l := New()
	now := time.Now()
	l.keeper = &keeper{ledger: l, say: say, journal: j, began: now, wall: now.Round(0), clock: l.Clock(),
		stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	boot, records, err := j.read()
	if err == nil {
		l.load(boot, records)
		err = j.replace(l.records())
	}
	if err != nil {
		j.close()
		return nil, err
	}
	return l, nil
}

// load takes over a file's records; later ones replace earlier ones.
func (l *Ledger) load(boot string, records []record) {
	now, clock := time.Now(), l.Clock()
	here := boot != "" && boot == l.keeper.journal.boot
	for i := range records {
		r := &records[i]
		if r.Seen.Before(unset) {
			r.Seen = now
		}
		age := r.ageNow(here, now, clock)
		if l.keep(r, age, clock) {
			continue
		}
		in := r.inbound(age, clock)
		n, _ := named(r.In)
		l.enter(in, n)
		in.about = r.SA
	}
}

// ageNow is how old the SA is. The clock that nobody sets tells how long ago the record was
// written, unless the machine has restarted since. Then the time of day tells; if that was
// set back, the SA does not become younger.
func (r *record) ageNow(here bool, now time.Time, clock time.Duration) time.Duration {
	if here && r.Clock > 0 && clock >= r.Clock {
		return r.Age + clock - r.Clock
	}
	return r.Age + max(0, now.Sub(time.Unix(0, r.Wall)))
}

// records are the lines for everything known that is not to be forgotten.
func (l *Ledger) records() iter.Seq[record] {
	return func(yield func(record) bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		now, clock := time.Now(), l.Clock()
		knows := now.Sub(l.keeper.began) > knowsAfter && !l.keeper.wasSet(now, clock)
		for h := range l.holders() {
			a := h.base()
			a.mu.Lock()
			r := h.record(now, clock)
			old := knows && !a.asked && now.Sub(r.Seen) > forgetful
			a.mu.Unlock()
			if !old && !yield(r) {
				return
			}
		}
		for r, asked := range l.traced(now, clock) {
			if old := knows && !asked && now.Sub(r.Seen) > forgetful; !old && !yield(r) {
				return
			}
		}
	}
}

// wasSet reports whether the time of day was set since the process began.
func (k *keeper) wasSet(now time.Time, clock time.Duration) bool {
	return (now.Round(0).Sub(k.wall) - (clock - k.clock)).Abs() > knowsAfter
}

// size is how much is known.
func (l *Ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inbound) + len(l.counters) + len(l.traces) + len(l.outTraces)
}

// holders is everything that is known; mu is held.
func (l *Ledger) holders() iter.Seq[holder] {
	return func(yield func(holder) bool) {
		for _, in := range l.inbound {
			if !yield(in) {
				return
			}
		}
		for _, c := range l.counters {
			if !yield(c) {
				return
			}
		}
	}
}

// want asks the keeper to look at a lease; h's mu is held.
func (k *keeper) want(h holder) {
	l := &h.base().lease
	if l.waiting {
		return
	}
	l.waiting = true
	k.listMu.Lock()
	k.waiting = append(k.waiting, h)
	k.listMu.Unlock()
	k.rouse()
}

func (k *keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run renews leases until it is stopped.
func (k *keeper) run() {
	defer close(k.done)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-k.stop:
			return
		case <-k.wake:
			if !k.failing.Load() {
				k.renew(false)
			}
		case <-tick.C:
			k.renew(true)
		}
		k.tell()
	}
}

// renew looks at the leases that are half used, and with all at the large ones, too.
func (k *keeper) renew(all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listMu.Lock()
	list := k.waiting
	k.waiting = nil
	k.listMu.Unlock()
	if all {
		list = append(list, k.unwatch()...)
	}
	if all && k.journal.gone() {
		_ = k.write(nil)
	}
	_ = k.grant(list, 0) // said by tell
}

// unwatch returns the watched leases, except those that will be renewed anyway.
func (k *keeper) unwatch() (list []holder) {
	for _, h := range k.watched {
		a := h.base()
		a.mu.Lock()
		a.lease.watched = false
		if !a.lease.waiting {
			list = append(list, h)
		}
		a.mu.Unlock()
	}
	k.watched = nil
	return list
}

// extend gets h a lease that covers number n, and waits for the disk. While that is full
// nobody waits.
func (k *keeper) extend(h holder, n uint64) error {
	if k.failing.Load() {
		k.wantLater(h)
		return ErrLease
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := h.base()
	a.mu.Lock()
	covered := a.covers(n)
	a.mu.Unlock()
	switch {
	case covered: // by the lease that was being written
		return nil
	case k.closed, k.failing.Load(), k.grant([]holder{h}, n) != nil:
		return ErrLease
	}
	return nil
}

// wantLater is want for callers that do not hold h's mu.
func (k *keeper) wantLater(h holder) {
	a := h.base()
	a.mu.Lock()
	defer a.mu.Unlock()
	k.want(h)
}

// grant writes the leases that need it; need is a number that h is about to use.
// mu is held.
//
//  1. Plan each lease; one that becomes smaller counts at once.
//  2. Write them.
//  3. Those that became larger count now.
func (k *keeper) grant(list []holder, need uint64) error {
	var planned []holder
	var records []record
	var ended []name
	now, clock := time.Now(), k.ledger.Clock()
	for _, h := range list {
		a := h.base()
		a.mu.Lock()
		a.lease.waiting = false
		if a.left {
			if a.lease.dirty {
				ended = append(ended, a.id)
			}
			a.mu.Unlock()
			continue
		}
		if a.lease.plan(h.used(), need, now.Sub(k.began)) {
			planned, records = append(planned, h), append(records, h.record(now, clock))
		} else {
			k.watch(h)
		}
		a.mu.Unlock()
	}
	records = append(records, k.ledger.leftBehind(ended, now, clock)...)
	if len(records) == 0 && !k.failing.Load() {
		return nil
	}
	err := k.write(records)
	for _, h := range planned {
		a := h.base()
		a.mu.Lock()
		if err == nil {
			a.lease.settle()
			k.watch(h)
		} else if !a.left {
			a.lease.pending = 0
			k.want(h)
		}
		a.mu.Unlock()
	}
	return err
}

// watch keeps an eye on a lease that may be larger than the rate asks for. h's mu is held.
func (k *keeper) watch(h holder) {
	if l := &h.base().lease; !l.watched && l.size > leastLease && !l.small(h.used()) {
		l.watched = true
		k.watched = append(k.watched, h)
	}
}

// write brings records to the disk, and everything else too if the file must be written
// anew. tell reports the outcome.
func (k *keeper) write(records []record) error {
	var err error
	if k.journal.long(k.ledger.size()) {
		err = k.journal.replace(k.ledger.records())
	} else {
		err = k.journal.append(records)
	}
	k.err = err
	if k.failing.Swap(err != nil) != (err != nil) {
		k.rouse()
	}
	return err
}

// tell reports whether the disk can be written to, when that has changed.
func (k *keeper) tell() {
	k.mu.Lock()
	err, was := k.err, k.told
	k.told = err != nil
	k.mu.Unlock()
	if was != (err != nil) && k.say != nil {
		k.say(err)
	}
}

// Close writes exactly what was used, so that nothing is lost, and releases the file. No
// number is given or taken afterwards. In memory it does nothing.
func (l *Ledger) Close() error {
	k := l.keeper
	if k == nil {
		return nil
	}
	close(k.stop)
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	l.mu.Lock()
	for h := range l.holders() {
		a := h.base()
		a.mu.Lock()
		a.lease = lease{waiting: true} // for ever
		a.mu.Unlock()
	}
	l.mu.Unlock()
	err := k.journal.replace(l.records())
	k.journal.close()
	return err
}
