package transport

import (
	"math"
	"time"

	"tapsec/status"
)

// ESN resynchronisation (RFC 4303 appendix A3; contract, The transport, step 4): a
// receiver that has missed more than 2^32 packets in a row completes all further numbers
// wrongly.
const (
	resyncAfter = 32          // ICV failures in a row
	resyncAhead = 4           // high halves to try
	resyncPause = time.Second // between two attempts
)

// esnGuess is the high halves that software is to try for a number, from first to last.
// The zero esnGuess is none.
type esnGuess struct {
	of          *association
	first, last uint32
}

// needsResync reports whether a wrong high half may have made the ICV fail, and whether
// this frame is to be tried.
func (r *Receiver) needsResync(f *frame, a *association, rec *status.Record) bool {
	if !a.ESN || !wrongICV(rec) {
		return false
	}
	a.troubled().failures++
	if a.failures < resyncAfter || a.retried != 0 && r.clock-a.retried < resyncPause {
		return false
	}
	a.retried = max(r.clock, 1)
	high := max(uint32(a.Mark.T()>>32), uint32(rec.Number>>32))
	if high == math.MaxUint32 {
		return false
	}
	f.guess = esnGuess{a, high + 1, high + min(resyncAhead, math.MaxUint32-high)}
	return true
}

// tryHighHalves tries one high half after the other on the outermost header. Once one
// verifies, software's result is judged and the NIC is told.
func (r *Receiver) tryHighHalves(f *frame) Reason {
	guess := f.guess
	f.guess = esnGuess{}
	for h := uint64(guess.first); h <= uint64(guess.last); h++ {
		opened, t := r.fallback.Retry(f.bytes, guess.of.SA, uint32(h))
		if t.N == 0 {
			return BadAnnotation
		}
		if s := t.Records[0].State; s == status.ICVValid || s == status.FailedAfter {
			f.nicBehind = guess.of
			if t := guess.of.trouble; t != nil && t.failures >= resyncAfter {
				r.audit.notice(r.now, guess.of, Resynchronised)
			}
			return f.begin(opened, t)
		}
		f.delivered, f.annotation = opened, t
	}
	f.failedRecord = &f.annotation.Records[0]
	f.countDropOn(guess.of)
	return ICV
}
