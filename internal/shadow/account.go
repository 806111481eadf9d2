package shadow

import (
	"time"

	"tapsec/internal/mirror"
	"tapsec/internal/replay"
	"tapsec/sa"
	"tapsec/status"
)

// fate is what one of a frame's SAs makes of it, in the kernel's terms.
type fate int

const (
	took      fate = iota
	badICV         // its ICV is wrong
	replayed       // its number was seen before, which the kernel checks first
	late           // its number is older than the window
	malformed      // something else is wrong with it, which the kernel counts for no SA
	unjudged       // tapsec leaves it alone: a fragment, a second tunnel ...
	fates
)

// account is the account of one SA while the shadow runs.
type account struct {
	*sa.SA
	handle         uint32
	window         replay.Window
	kernel, base   mirror.Usage // its counters, and what they were at the beginning
	added, deleted time.Time    // zero: before the shadow began, and not yet

	sure, maybe [fates]uint64            // frames
	reasons     map[status.Reason]uint64 // of the bad ones
}

// newAccount begins with what the kernel knows of an SA's numbers.
func newAccount(s *sa.SA, u mirror.Usage) *account {
	a := &account{SA: s, kernel: u, base: u, window: replay.Off(), reasons: map[status.Reason]uint64{}}
	if sa.ValidWindow(uint64(u.Window)) {
		a.window = replay.New(u.Window)
		a.window.TakeOver(s.Seq, s.Bitmap)
	}
	return a
}

// unsure reports whether a frame read at that time may have come while the kernel did
// not have the SA.
func (a *account) unsure(at time.Time) bool {
	return !at.After(a.added) || !a.deleted.IsZero() && at.After(a.deleted.Add(-delay))
}

// count counts a record of the SA.
func (a *account) count(r *status.Record, unsure bool) {
	f := a.fate(r)
	if f == badICV || f == malformed {
		a.reasons[r.Reason]++
	}
	if unsure {
		a.maybe[f]++
	} else {
		a.sure[f]++
	}
}

// fate is what the kernel makes of a record's frame: it checks the window before the
// ICV.
func (a *account) fate(r *status.Record) fate {
	if r.State == status.NotProcessed {
		return unjudged
	}
	switch refused, old := a.window.Refuses(r.Number); {
	case old:
		return late
	case refused:
		return replayed
	case r.State == status.ICVValid:
		a.window.Accept(r.Number)
		return took
	case r.Reason == status.ESPICV || r.Reason == status.AHICV:
		return badICV
	}
	return malformed
}

// smallWindow reports whether tapsec has no window as small as the kernel's, so that
// only the sum of what it took and refused can be compared.
func (a *account) smallWindow() bool {
	return a.kernel.Window > 0 && !sa.ValidWindow(uint64(a.kernel.Window))
}
