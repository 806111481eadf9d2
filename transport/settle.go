package transport

import (
	"tapsec/sa"
	"tapsec/status"
)

// settle goes through the records, outermost first (contract 6.2, 6.3).
//
//  1. A valid ICV: the number goes to its SA's window, whatever else is wrong
//     with the frame. The first refusal ends the frame.
//  2. A failed check ends the frame, unless software may know better.
//  3. A header that was left alone is software's.
//
// The records that remain are those of headers that can be taken off.
func (c *Consumer) settle() Reason {
	for i := range c.trailer.N {
		r := &c.trailer.Records[i]
		a := c.find(r)
		c.entries[i] = a
		if r.State == status.NotProcessed {
			c.trailer.N = i
			return None
		}
		if a != nil && (r.State == status.ICVValid || r.State == status.FailedAfter) {
			if !c.accept(a, r) {
				c.culprit = r
				return Replay
			}
		}
		switch {
		case r.State != status.ICVValid:
			c.trailer.N = i
			c.culprit = r
			return c.failed(a, r)
		case a == nil:
			return NoSA
		}
	}
	return None
}

// accept takes an authentic number into account: window, ESN mark, lifetime.
func (c *Consumer) accept(a *association, r *status.Record) bool {
	a.failures = 0
	a.Mark.Authenticated(r.Number)
	if r.DeleteSA && !a.released && c.nic != nil {
		a.released = true
		c.nic.Delete(a.SA)
	}
	c.via = append(c.via, a)
	if !a.window.Accept(r.Number) {
		return false
	}
	a.tally.Packets++
	a.tally.Bytes += uint64(r.PayloadLen)
	c.spend(a, uint64(r.PayloadLen))
	return true
}

// failed says what becomes of a frame with a header that failed its check. An SA
// of the frame's protocol that the NIC does not hold may still open it, and a
// number may have lost its high half (RFC 4303 appendix A3): then the header is
// left to software.
func (c *Consumer) failed(a *association, r *status.Record) Reason {
	switch {
	case a == nil && r.Code == status.InvalidProtocol:
		return Protocol
	case a == nil:
		return NoSA
	case r.Code == status.InvalidProtocol && !c.softly:
		return None
	case c.lost(a, r):
		c.doubt, c.after = a, max(uint32(a.Mark.T()>>32), uint32(r.Number>>32))
		return None
	}
	c.blame(a)
	return reasonOf(r.Reason)
}

// reasonOf is the NIC's reason in the transport's words.
func reasonOf(r status.Reason) Reason {
	switch r {
	case status.AHICV, status.ESPICV:
		return ICV
	case status.ProtocolMismatch, status.BundleMismatch:
		return Protocol
	case status.PadBytes:
		return Padding
	}
	return Length
}

// blame makes a the SA that the frame's drop is counted on.
func (c *Consumer) blame(a *association) {
	if n := len(c.via); n == 0 || c.via[n-1] != a {
		c.via = append(c.via, a)
	}
}

// refuse notes why the frame will not be delivered. The work goes on, since
// numbers further in have to reach their windows, wherever they are opened.
func (c *Consumer) refuse(r Reason) {
	if c.refused == None {
		c.refused = r
	}
}

// bundled tells whether a is the AH of a bundle, whose ESP ends the portion.
func bundled(a *association) bool { return a.Protocol == sa.AH && a.Partner != nil }
