package ledger

import (
	"encoding/hex"
	"iter"
	"time"
)

// A key is used again and again only while an SA has it. Of one that no SA has any more
// what forbids a repetition is kept, in maps without pointers: 56 bytes inbound and 32
// outbound, and the room that a map leaves free.

// name is a fingerprint's bytes.
type name [16]byte

// named is the name that a text is; ok is false where it is none.
func named(text string) (n name, ok bool) {
	b, err := hex.DecodeString(text)
	copy(n[:], b)
	return n, err == nil && len(b) == len(n)
}

func (n name) String() string { return hex.EncodeToString(n[:]) }

// trace is what stays of an inbound SA. Numbers up to the highest are refused from then on,
// whether they came or not.
type trace struct {
	top            uint64
	packets, bytes uint64
	began          time.Duration
	last
	ended bool
}

// outTrace is what stays of an outbound SA.
type outTrace struct {
	next uint64
	last
}

// last is when a key was last in use.
type last struct {
	seen  uint32 // seconds since the Unix epoch
	asked bool   // in this process, which then does not forget it
}

// when is what a line says of that.
func (t last) when(now time.Time) time.Time {
	if t.asked {
		return now
	}
	return time.Unix(int64(t.seen), 0)
}

// Leave tells that no SA has this any more. It takes no number from then on; an SA that
// brings the key back gets another Inbound by the Ledger, which refuses all numbers up to
// the highest. What was never used is forgotten.
func (l *Ledger) Leave(in *Inbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inbound[in.id] != in {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.left = true
	delete(l.inbound, in.id)
	if in.window.Top() > 0 || in.ended {
		l.traces[in.id] = trace{in.window.Top(), in.packets, in.bytes, in.began, in.last, in.ended}
	}
}

// LeaveCounter tells that an SA no longer has this. If none holds it any more, it gives no number
// from then on; an SA that brings the key back gets another Counter by the Ledger, which goes on.
func (l *Ledger) LeaveCounter(c *Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counters[c.id] != c {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders--; c.holders > 0 {
		return
	}
	c.left = true
	delete(l.counters, c.id)
	if c.next > 1 {
		l.outTraces[c.id] = outTrace{c.next, c.last}
	}
}

// back is what the traces know of an inbound SA, which they then no longer have; nil where
// they know nothing. mu is held.
func (l *Ledger) back(id name) *Inbound {
	t, ok := l.traces[id]
	if !ok {
		return nil
	}
	delete(l.traces, id)
	in := &Inbound{packets: t.packets, bytes: t.bytes, began: t.began, ended: t.ended}
	in.last = t.last
	in.window.Refuse(t.top)
	l.enter(in, id)
	return in
}

// backCounter is the same for an outbound one.
func (l *Ledger) backCounter(id name) *Counter {
	t, ok := l.outTraces[id]
	if !ok {
		return nil
	}
	delete(l.outTraces, id)
	c := &Counter{next: t.next}
	c.last = t.last
	return c
}

// keep makes a trace of a record, if one is all that there is to it.
func (l *Ledger) keep(r *record, age, clock time.Duration) bool {
	seen := last{seen: uint32(r.Seen.Unix())}
	if n, ok := named(r.Out); ok {
		l.outTraces[n] = outTrace{r.Next, seen}
		return true
	}
	n, ok := named(r.In)
	if ok = ok && r.UpTo != nil; ok {
		l.traces[n] = trace{*r.UpTo, r.Packets, r.Bytes, clock - age, seen, r.Ended}
		delete(l.inbound, n)
	} else {
		delete(l.traces, n)
	}
	return ok
}

// leftBehind are the lines of those of these names that no SA has. Where an SA has
// one again, its line comes later and says as much.
func (l *Ledger) leftBehind(names []name, now time.Time, clock time.Duration) (lines []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		if t, ok := l.traces[n]; ok {
			lines = append(lines, t.record(n, now, clock))
		}
	}
	return lines
}

func (t *trace) record(n name, now time.Time, clock time.Duration) record {
	upTo := t.top
	return record{In: n.String(), Seen: seenAt(t.when(now)), UpTo: &upTo, Packets: t.packets, Bytes: t.bytes,
		Ended: t.ended, Age: clock - t.began, Wall: now.UnixNano(), Clock: clock}
}

// traced are the lines of the traces, and whether each belongs to this process; mu is held.
func (l *Ledger) traced(now time.Time, clock time.Duration) iter.Seq2[record, bool] {
	return func(yield func(record, bool) bool) {
		for n, t := range l.traces {
			if !yield(t.record(n, now, clock), t.asked) {
				return
			}
		}
		for n, t := range l.outTraces {
			if !yield(record{Out: n.String(), Seen: seenAt(t.when(now)), Next: t.next}, t.asked) {
				return
			}
		}
	}
}

// seenAt is a time as lines have it.
func seenAt(t time.Time) time.Time { return t.Truncate(time.Second).UTC() }
