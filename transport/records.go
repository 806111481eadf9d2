package transport

import (
	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/status"
)

// checkRecords goes through the records, outermost first (contract, The
// transport, steps 2 and 3).
//
//  1. A valid ICV: the number goes to its SA's window, whatever else is wrong
//     with the frame. The first refusal ends the frame.
//  2. A failed check ends the frame, unless software may succeed.
//  3. A header that was left alone is for software.
//
// It keeps the records of the headers that can be taken off.
func (r *Receiver) checkRecords(f *frame) Reason {
	for i := range f.records {
		rec := &f.records[i]
		a := r.find(f, rec)
		f.sas[i] = a
		if rec.DeleteSA && a != nil {
			r.release(a)
		}
		if rec.State == status.NotProcessed {
			f.records = f.records[:i]
			return None
		}
		if a != nil && (rec.State == status.ICVValid || rec.State == status.FailedAfter) {
			if reason := r.accept(f, a, rec); reason != None {
				f.failedRecord = rec
				return reason
			}
		}
		switch {
		case rec.State != status.ICVValid:
			f.records = f.records[:i]
			return r.checkFailed(f, a, rec)
		case a == nil:
			return NoSA
		}
	}
	return None
}

// release takes an SA back from a NIC that asks for its deletion.
func (r *Receiver) release(a *association) {
	if a.released || r.nic == nil {
		return
	}
	a.released = true
	r.nic.Delete(a.SA)
}

// accept records an authentic number: in window, ESN mark and lifetime.
func (r *Receiver) accept(f *frame, a *association, rec *status.Record) Reason {
	if a.trouble != nil {
		a.failures = 0
	}
	a.Mark.Authenticated(rec.Number)
	if f.nicBehind == a && r.nic != nil {
		r.nic.Update(a.SA, uint32(rec.Number>>32))
	}
	f.carriedBy = append(f.carriedBy, a)
	switch a.known.Accept(rec.Number, uint64(rec.PayloadLen)) {
	case ledger.Refused:
		return Replay
	case ledger.NoLease:
		return NoLease
	}
	a.packets++
	a.bytes += uint64(rec.PayloadLen)
	if r.checkLifetime(a) {
		f.refuse(Expired)
	}
	return None
}

// checkFailed decides about a frame with a header that failed its check. Software gets it
// if it may be able to open it: because the NIC knew less than we do, or because the
// number's high half may be lost (RFC 4303 appendix A3).
func (r *Receiver) checkFailed(f *frame, a *association, rec *status.Record) Reason {
	switch {
	case a == nil && rec.Code == status.InvalidProtocol:
		f.failedRecord = rec
		return Protocol
	case a == nil:
		f.failedRecord = rec
		return NoSA
	case r.nicMistaken(f, a, rec), r.needsResync(f, a, rec):
		return None
	}
	f.failedRecord = rec
	f.countDropOn(a)
	return reasonOf(rec.Reason)
}

// nicMistaken reports whether the NIC failed a header because it lacks what we have.
//
//  1. It holds an SA of the other protocol, or half of a bundle.
//  2. It holds an SA that matches more packets, but not the right one.
//  3. It has not seen the numbers that software authenticated, and took another
//     high half. The ESP of a bundle whose good AH has been taken off needs Retry:
//     software would not open it alone.
func (r *Receiver) nicMistaken(f *frame, a *association, rec *status.Record) bool {
	if f.inSoftware || rec.State != status.FailedBefore {
		return false
	}
	number := a.Mark.Number(uint32(rec.Number))
	switch {
	case rec.Code == status.InvalidProtocol, r.shadowed(a):
		return true
	case number == rec.Number || !wrongICV(rec):
		return false
	case a.Protocol == sa.ESP && a.Partner != nil:
		f.guess = esnGuess{a, uint32(number >> 32), uint32(number >> 32)}
	}
	f.nicBehind = a
	return true
}

func wrongICV(rec *status.Record) bool {
	return rec.Reason == status.AHICV || rec.Reason == status.ESPICV
}

// reasonOf is the NIC's reason in the transport's words.
func reasonOf(reason status.Reason) Reason {
	switch reason {
	case status.AHICV, status.ESPICV:
		return ICV
	case status.ProtocolMismatch, status.BundleMismatch:
		return Protocol
	case status.PadBytes:
		return Padding
	}
	return Length
}
