package ledger

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"
	"unsafe"

	"tapsec/sa"
)

// Contract, Lifecycle: what a key was used for outlives its SA. A window that was left takes
// nothing, and a counter gives nothing.
func TestLeft(t *testing.T) {
	l := New()
	in, c := l.Inbound(newSA(1)), l.Counter(newSA(1, gcm))
	accept(t, in, Fresh, 1, 3, 5)
	next(t, c, 1)
	next(t, c, 2)
	used := in.Usage()
	l.Leave(in)
	l.LeaveCounter(c)
	accept(t, in, Refused, 4, 6)
	if n, err := c.Next(lastNumber); !errors.Is(err, ErrUsedUp) {
		t.Errorf("a counter that was left gave %d, %v", n, err)
	}
	l.Leave(in) // twice, or late, changes nothing
	l.LeaveCounter(c)

	back, again := l.Inbound(newSA(1)), l.Counter(newSA(2, gcm))
	back.Configure(newSA(1, func(s *sa.SA) { s.Window = 1024 }))
	if back.Usage() != used {
		t.Errorf("usage %+v, want %+v", back.Usage(), used)
	}
	accept(t, back, Refused, 1, 2, 3, 4, 5)
	accept(t, back, Fresh, 6, 8, 7)
	next(t, again, 3)
	l.Leave(in) // the old one is not the new one
	l.LeaveCounter(c)
	accept(t, back, Fresh, 9)
	next(t, again, 4)
}

// What has ended stays ended, used or not; what was never used is forgotten.
func TestLeftUnused(t *testing.T) {
	l := New()
	for spi := range uint32(100) {
		l.Leave(l.Inbound(newSA(spi + 2)))
		l.LeaveCounter(l.Counter(newSA(spi + 2)))
	}
	in := l.Inbound(newSA(1))
	in.End()
	l.Leave(in)
	if l.size() != 1 {
		t.Errorf("%d are known, want the one that ended", l.size())
	}
	if !l.Inbound(newSA(1)).Usage().Ended {
		t.Error("the end was forgotten")
	}
}

// In a file the same holds after an ordinary end, and after kill -9.
func TestLeftOnDisk(t *testing.T) {
	for _, end := range []func(*Ledger){killed, func(l *Ledger) { closed(t, l) }} {
		path := statePath(t)
		l := opened(t, path)
		in, c := l.Inbound(newSA(1)), l.Counter(newSA(1, gcm))
		accept(t, in, Fresh, 1, 1000)
		for want := uint64(1); want <= 100; want++ {
			next(t, c, want)
		}
		in.End()
		l.Leave(in)
		l.LeaveCounter(c)
		l.keeper.renew(false) // which its goroutine may be about to do
		end(l)
		for range 2 { // from lines of an SA, and from those of a trace
			l = opened(t, path)
			in, c = l.Inbound(newSA(1)), l.Counter(newSA(1, gcm))
			accept(t, in, Refused, 1, 999, 1000)
			if n, err := c.Next(lastNumber); err != nil || n <= 100 {
				t.Errorf("number %d, %v", n, err)
			}
			if u := in.Usage(); !u.Ended || u.Packets != 2 && u.Packets != 1 {
				t.Errorf("usage %+v", u)
			}
			l.Leave(in)
			end(l)
		}
	}
}

// The lease of a key that is left and brought back is written after all that was written of
// it before, so that none of its numbers passes again after kill -9.
func TestBackBeforeTheLeaseIsWritten(t *testing.T) {
	path := statePath(t)
	l := opened(t, path)
	for top := uint64(10); top < 10_000; top += 500 {
		in := l.Inbound(newSA(1))
		accept(t, in, Refused, 0)
		accept(t, in, Fresh, top)
		l.Leave(in)
	}
	in := l.Inbound(newSA(1))
	accept(t, in, Fresh, 20_000)
	killed(l)
	l = opened(t, path)
	defer closed(t, l)
	accept(t, l.Inbound(newSA(1)), Refused, 1, 9510, 20_000)
}

// With rekeys for ever a key costs some tens of bytes of memory, and one line of the file.
func TestRekeys(t *testing.T) {
	const rekeys, line = 2000, 200
	if n := unsafe.Sizeof(name{}) + unsafe.Sizeof(trace{}); n > 64 {
		t.Errorf("a key that was left takes %d bytes", n)
	}
	path := statePath(t)
	l := opened(t, path)
	for spi := range uint32(rekeys) {
		in := l.Inbound(newSA(spi + 1))
		accept(t, in, Fresh, 1)
		l.Leave(in)
		l.LeaveCounter(l.Counter(newSA(spi + 1)))
	}
	if len(l.inbound)+len(l.counters) != 0 || len(l.traces) != rekeys || len(l.outTraces) != 0 {
		t.Errorf("%d and %d in use, %d and %d left, want %d left", len(l.inbound), len(l.counters), len(l.traces), len(l.outTraces), rekeys)
	}
	closed(t, l)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines != rekeys+1 || len(text) > lines*line {
		t.Errorf("%d bytes in %d lines for %d keys", len(text), lines, rekeys)
	}
	l = opened(t, path)
	defer closed(t, l)
	if len(l.inbound) != 0 || len(l.traces) != rekeys {
		t.Errorf("read again: %d in use, %d left", len(l.inbound), len(l.traces))
	}
	for spi := range uint32(rekeys) {
		accept(t, l.Inbound(newSA(spi+1)), Refused, 1)
	}
}

// What is left is forgotten after 90 days, like what is only in the file, but never by the
// process that had it.
func TestLeftIsForgotten(t *testing.T) {
	path := statePath(t)
	l := opened(t, path)
	in := l.Inbound(newSA(1))
	accept(t, in, Fresh, 1)
	l.Leave(in)
	now, clock := time.Now(), l.Clock()
	for r, asked := range l.traced(now.Add(2*forgetful), clock) {
		if !asked || r.Seen.Before(now.Add(forgetful)) {
			t.Errorf("a key of this process was seen %s, asked for: %t", r.Seen, asked)
		}
	}
	closed(t, l)
	l = opened(t, path)
	defer closed(t, l)
	for r, asked := range l.traced(now.Add(2*forgetful), clock) {
		if asked || r.Seen.After(now.Add(time.Minute)) {
			t.Errorf("a key of the process before was seen %s, asked for: %t", r.Seen, asked)
		}
	}
}
