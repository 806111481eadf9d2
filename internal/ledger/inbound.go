package ledger

import (
	"time"

	"tapsec/internal/replay"
	"tapsec/sa"
)

// Inbound is what is known of an inbound SA. Several goroutines may use it.
type Inbound struct {
	account
	window         replay.Window
	packets, bytes uint64
	began          time.Duration // by the ledger's clock
	ended          bool
}

// Usage is how much of an SA's lifetime is used up (RFC 4301 section 4.4.2.1).
type Usage struct {
	Packets, Bytes uint64        // accepted; bytes of payload
	Began          time.Duration // by the ledger's clock
	Ended          bool          // End was called
}

// Verdict says what became of a number.
type Verdict uint8

// The verdicts.
const (
	Fresh   Verdict = iota + 1
	Refused         // it came before, is too old to tell, or is 0
	NoLease         // the disk cannot be written to first; ask again later
)

// Accept says whether a packet with that number and payload bytes may pass, and counts it.
// A valid ICV must have proven the number.
func (in *Inbound) Accept(seq, payload uint64) Verdict {
	for {
		if v := in.accept(seq, payload); v != NoLease {
			return v
		}
		if in.keeper.extend(in, seq) != nil {
			return NoLease
		}
	}
}

func (in *Inbound) accept(seq, payload uint64) Verdict {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.left:
		return Refused
	case !in.covers(seq):
		return NoLease
	case !in.window.Accept(seq):
		return Refused
	}
	in.packets++
	in.bytes += payload
	spent(in)
	return Fresh
}

// Configure gives the window the SA's size, and the numbers that a running SA was taken
// over with, if they are new.
func (in *Inbound) Configure(s *sa.SA) {
	in.mu.Lock()
	defer in.mu.Unlock()
	defer spent(in)
	if next := replay.Of(s); next.Size() != in.window.Size() {
		if err := next.Restore(in.window.Snapshot()); err != nil {
			panic("ledger: a window that makes no sense: " + err.Error())
		}
		in.window = next
	}
	if s.Seq > in.window.Top() {
		in.window.TakeOver(s.Seq, s.Bitmap)
	}
}

// Window is the window's state.
func (in *Inbound) Window() replay.State {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.window.State()
}

// Usage is what has been used so far.
func (in *Inbound) Usage() Usage {
	in.mu.Lock()
	defer in.mu.Unlock()
	return Usage{in.packets, in.bytes, in.began, in.ended}
}

// End notes that the SA's lifetime is over, for good.
func (in *Inbound) End() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	if in.onDisk != nil {
		in.lease.dirty = true
		in.keeper.want(in)
	}
}

func (in *Inbound) used() uint64 { return in.window.Top() }

func (in *Inbound) record(now time.Time, clock time.Duration) record {
	r := in.line(now)
	r.In, r.Packets, r.Bytes, r.Ended = in.id.String(), in.packets, in.bytes, in.ended
	r.Age, r.Wall, r.Clock = clock-in.began, now.UnixNano(), clock
	if upTo, ok := in.promised(in.used()); ok {
		r.UpTo = &upTo
	} else {
		s := in.window.Snapshot()
		r.Window = &s
	}
	return r
}
