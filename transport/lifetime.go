package transport

import "tapsec/sa"

// usage is what of an SA's lifetime is used up (RFC 4301 section 4.4.2.1).
type usage struct {
	Packets, Bytes uint64 // with a valid ICV and a fresh number; bytes of payload
	Since          int64  // ns since the Unix epoch
	announced      bool   // that the soft lifetime is over
	ended          bool   // that the hard one is
}

// spend counts a packet of n bytes, after the window so that replays cost an SA
// nothing, and reports whether it lies beyond the hard lifetime.
func (r *Receiver) spend(a *association, n uint64) bool {
	a.usage.Packets++
	a.usage.Bytes += n
	return r.checkLifetime(a)
}

// checkLifetime announces, once each, that a lifetime of the SA is over, and
// reports whether the hard one is.
func (r *Receiver) checkLifetime(a *association) bool {
	hard := a.usage.beyond(a.Lifetimes.Hard, r.now)
	switch {
	case hard && !a.usage.ended:
		a.usage.ended, a.usage.announced = true, true
		r.audit.notice(r.now, a, Expired)
	case !hard && !a.usage.announced && a.usage.beyond(a.Lifetimes.Soft, r.now):
		a.usage.announced = true
		r.audit.notice(r.now, a, SoftExpired)
	}
	return hard
}

// beyond reports whether more was used than the limit grants.
func (u *usage) beyond(l sa.Limit, now int64) bool {
	return l.Packets > 0 && u.Packets > l.Packets ||
		l.Bytes > 0 && u.Bytes > l.Bytes ||
		l.Time > 0 && now-u.Since >= int64(l.Time)
}

// Tick tells the Receiver the time where no frame does: lifetimes end also when
// nothing comes.
func (r *Receiver) Tick(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = max(r.now, now)
	for _, e := range r.sas.List() {
		r.checkLifetime(e.Value)
	}
}
