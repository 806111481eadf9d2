package transport

import (
	"tapsec/sa"
	"tapsec/status"
)

// settle goes through the records, outermost first (contract, The transport, steps 2 and 3).
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
		if r.DeleteSA && a != nil {
			c.release(a)
		}
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
			return c.failed(a, r)
		case a == nil:
			return NoSA
		}
	}
	return None
}

// release takes an SA back from the NIC, which asks for it whatever it has found.
func (c *Consumer) release(a *association) {
	if a.released || c.nic == nil {
		return
	}
	a.released = true
	c.nic.Delete(a.SA)
}

// accept takes an authentic number into account: window, ESN mark, lifetime.
func (c *Consumer) accept(a *association, r *status.Record) bool {
	a.failures = 0
	a.Mark.Authenticated(r.Number)
	if c.behind == a && c.nic != nil {
		c.nic.Update(a.SA, uint32(r.Number>>32))
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

// failed says what becomes of a frame with a header that failed its check. It is
// left to software where that may open it: the NIC knew less than we do, or the
// number may have lost its high half (RFC 4303 appendix A3).
func (c *Consumer) failed(a *association, r *status.Record) Reason {
	switch {
	case a == nil && r.Code == status.InvalidProtocol:
		c.culprit = r
		return Protocol
	case a == nil:
		c.culprit = r
		return NoSA
	case c.misled(a, r), c.lost(a, r):
		return None
	}
	c.culprit = r
	c.blame(a)
	return reasonOf(r.Reason)
}

// misled tells whether the NIC failed a header because it lacks what we have.
//
//  1. It holds an SA of the other protocol, or half of what a portion takes.
//  2. It holds an SA that matches more packets, and not the one that is meant.
//  3. It has not seen the numbers that software authenticated, and has taken
//     another high half. The ESP of a bundle, whose AH was good and is taken
//     off, no software would open without it: that needs Retry.
func (c *Consumer) misled(a *association, r *status.Record) bool {
	if c.softly || r.State != status.FailedBefore {
		return false
	}
	number := a.Mark.Number(uint32(r.Number))
	switch {
	case r.Code == status.InvalidProtocol, c.shadowed(a):
	case number == r.Number || !wrongICV(r):
		return false
	case a.Protocol == sa.ESP && a.Partner != nil:
		c.doubt = doubt{a, uint32(number >> 32), uint32(number >> 32)}
		c.behind = a
	default:
		c.behind = a
	}
	return true
}

func wrongICV(r *status.Record) bool { return r.Reason == status.AHICV || r.Reason == status.ESPICV }

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
