package transport

import "tapsec/status"

// ESN resynchronisation (RFC 4303 appendix A3, contract 6.4): a receiver that
// lost more than 2^32 packets in a row completes all further numbers wrongly.
const (
	resyncAfter = 32            // ICV failures in a row
	resyncAhead = 4             // high halves that are tried
	resyncPause = 1_000_000_000 // ns between two frames that are tried
)

// lost tells whether a failed ICV may come from a number whose high half is
// unknown, and this frame is to be tried.
func (c *Consumer) lost(a *association, r *status.Record) bool {
	if !a.ESN || r.Reason != status.AHICV && r.Reason != status.ESPICV {
		return false
	}
	a.failures++
	if a.failures < resyncAfter || a.retried != 0 && c.now-a.retried < resyncPause {
		return false
	}
	a.retried = c.now
	return true
}

// resync tries the frame, which begins with a header of SA a, with the next high
// halves. The first that proves right is made known to NIC and audit, and the
// frame is judged as software's.
func (c *Consumer) resync(a *association) Reason {
	for h := c.after + 1; h-c.after <= resyncAhead && h > c.after; h++ {
		annotated := c.fallback.Retry(c.frame, a.SA, h)
		body, t, err := status.Split(annotated)
		c.annotated = annotated
		if err != nil || t.N == 0 || t.Records[0].State == status.FailedBefore || t.Records[0].State == status.NotProcessed {
			continue
		}
		if c.nic != nil {
			c.nic.Update(a.SA, h)
		}
		c.audit.notice(c, a, Resynchronised)
		return c.take(annotated, body, &t)
	}
	c.blame(a)
	return ICV
}
