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
// nothing. Beyond the hard lifetime the packet is refused.
func (c *Consumer) spend(a *association, n uint64) {
	a.usage.Packets++
	a.usage.Bytes += n
	if c.age(a) {
		c.refuse(Expired)
	}
}

// age announces, once each, that a lifetime of the SA is over, and tells whether
// the hard one is.
func (c *Consumer) age(a *association) bool {
	hard := a.usage.beyond(a.Lifetimes.Hard, c.now)
	switch {
	case hard && !a.usage.ended:
		a.usage.ended, a.usage.announced = true, true
		c.audit.notice(c, a, Expired)
	case !hard && !a.usage.announced && a.usage.beyond(a.Lifetimes.Soft, c.now):
		a.usage.announced = true
		c.audit.notice(c, a, SoftExpired)
	}
	return hard
}

// beyond tells whether more was used than the limit grants.
func (u *usage) beyond(l sa.Limit, now int64) bool {
	return l.Packets > 0 && u.Packets > l.Packets ||
		l.Bytes > 0 && u.Bytes > l.Bytes ||
		l.Time > 0 && now-u.Since >= int64(l.Time)
}

// Tick tells the Consumer the time where no frame does: lifetimes end also when
// nothing comes.
func (c *Consumer) Tick(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = max(c.now, now)
	for _, e := range c.sas.List() {
		c.age(e.Value)
	}
}
