package transport

import (
	"math"

	"tapsec/status"
)

// ESN resynchronisation (RFC 4303 appendix A3, contract, The transport, step 4): a receiver that
// lost more than 2^32 packets in a row completes all further numbers wrongly.
const (
	resyncAfter = 32            // ICV failures in a row
	resyncAhead = 4             // high halves that are tried
	resyncPause = 1_000_000_000 // ns between two frames that are tried
)

// doubt is what software is to presume of a number: the high halves from first
// to last, one after the other. The zero doubt is none.
type doubt struct {
	of          *association
	first, last uint32
}

// lost tells whether a failed ICV may come from a number whose high half is
// unknown, and this frame is to be tried.
func (c *Consumer) lost(a *association, r *status.Record) bool {
	if !a.ESN || !wrongICV(r) {
		return false
	}
	a.failures++
	if a.failures < resyncAfter || a.retried != 0 && c.now-a.retried < resyncPause {
		return false
	}
	a.retried = c.now
	high := max(uint32(a.Mark.T()>>32), uint32(r.Number>>32))
	if high == math.MaxUint32 {
		return false
	}
	c.doubt = doubt{a, high + 1, high + min(resyncAhead, math.MaxUint32-high)}
	return true
}

// presume tries the frame, which begins with the header in doubt, with one high
// half after the other. With the first that proves right the frame is judged as
// software's, and the NIC is told.
func (c *Consumer) presume(d doubt) Reason {
	for h := uint64(d.first); h <= uint64(d.last); h++ {
		annotated := c.fallback.Retry(c.frame, d.of.SA, uint32(h))
		body, t, err := status.Split(annotated)
		if err != nil || t.N == 0 {
			return BadAnnotation
		}
		if s := t.Records[0].State; s == status.ICVValid || s == status.FailedAfter {
			c.behind = d.of
			if d.of.failures >= resyncAfter {
				c.audit.notice(c, d.of, Resynchronised)
			}
			return c.take(annotated, body, &t)
		}
		c.annotated, c.trailer = annotated, t
	}
	c.culprit = &c.trailer.Records[0]
	c.blame(d.of)
	return ICV
}
