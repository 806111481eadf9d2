package transport

import (
	"time"

	"tapsec/internal/ledger"
	"tapsec/sa"
)

// checkLifetime announces, once each, that the SA's soft or hard lifetime is over (RFC
// 4301 section 4.4.2.1), and reports whether the hard one is; it then stays over. It
// comes after the window, so that replays cost an SA nothing.
func (r *Receiver) checkLifetime(a *association) bool {
	u := a.known.Usage()
	hard := u.Ended || beyond(&u, a.Lifetimes.Hard, r.clock)
	switch {
	case hard && !u.Ended:
		a.known.End()
		r.audit.notice(r.now, a, Expired)
	case !hard && !a.announced && beyond(&u, a.Lifetimes.Soft, r.clock):
		a.announced = true
		r.audit.notice(r.now, a, SoftExpired)
	}
	return hard
}

// beyond reports whether more was used than the limit allows.
func beyond(u *ledger.Usage, l sa.Limit, clock time.Duration) bool {
	return l.Packets > 0 && u.Packets > l.Packets ||
		l.Bytes > 0 && u.Bytes > l.Bytes ||
		l.Time > 0 && clock-u.Began >= l.Time
}

// Tick is to be called once a second. It tells the Receiver the time of day if no frame
// does, ends lifetimes even if nothing comes, and tells Audit of events left out.
func (r *Receiver) Tick(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.clock = now, r.ledger.Clock()
	for a := range r.mortal {
		r.checkLifetime(a)
	}
	r.audit.silent(false)
}
