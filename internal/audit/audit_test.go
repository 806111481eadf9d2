package audit

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const icv, replay, noSA = 1, 2, 3

// A flood of one kind hides no event of another reason, nor of the same one on
// another SA, and each event is reported or counted, once (contract, What is
// logged).
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter[string]
		got := map[uint8]uint64{}
		lines := 0
		event := func(reason uint8, sa string) bool {
			n, ok := l.Allow(reason, sa)
			if ok {
				got[reason] += n + 1
				lines++
			}
			return ok
		}
		silent := func(all bool) (reasons int) {
			l.Silent(all, func(reason uint8, n uint64) { got[reason] += n; reasons++ })
			return reasons
		}
		for range 197 {
			event(noSA, "")
		}
		if lines != PerSA || !event(icv, "web") || !event(replay, "web") || !event(noSA, "web") {
			t.Errorf("%d lines, and one of another kind is hidden", lines)
		}
		if got[noSA] != 198 {
			t.Errorf("the next event of the kind tells of %d", got[noSA])
		}
		for range 10 {
			event(noSA, "")
		}
		if silent(false) != 0 {
			t.Error("no kind has become silent yet")
		}
		time.Sleep(time.Second)
		if n, ok := l.Allow(noSA, ""); !ok || n != 10 {
			t.Errorf("suppressed %d, %t", n, ok)
		}
		got[noSA] += 10 + 1
		for range 100 {
			event(icv, "web")
		}
		time.Sleep(time.Second)
		if silent(false) != 1 || silent(true) != 0 {
			t.Error("one kind has become silent, and is told of once")
		}
		for range 100 {
			event(replay, "web")
		}
		if silent(true) != 1 {
			t.Error("all is told at the end")
		}
		if got[noSA] != 209 || got[icv] != 101 || got[replay] != 101 {
			t.Errorf("events %v", got)
		}
	})
}

// Events on ever other SAs are bounded by their reason, and so is memory.
func TestManySAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter[int]
		for second := range 3 {
			lines := 0
			for sa := range 100_000 {
				if _, ok := l.Allow(icv, sa); ok {
					lines++
				}
			}
			if lines != PerReason || len(l.lines) > PerReason {
				t.Errorf("second %d: %d lines, %d SAs remembered", second, lines, len(l.lines))
			}
			time.Sleep(time.Second)
		}
	})
}

func TestConcurrentEvents(t *testing.T) {
	var l Limiter[string]
	var all sync.WaitGroup
	var mu sync.Mutex
	total := uint64(0)
	for range 4 {
		all.Go(func() {
			for range 1000 {
				if n, ok := l.Allow(icv, "x"); ok {
					mu.Lock()
					total += n + 1
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	l.Silent(true, func(_ uint8, n uint64) { total += n })
	if total != 4000 {
		t.Errorf("%d events of 4000", total)
	}
}

// What is left out costs no memory.
func TestNoAllocs(t *testing.T) {
	var l Limiter[string]
	for range PerSA {
		l.Allow(icv, "x")
	}
	if n := testing.AllocsPerRun(1000, func() { l.Allow(icv, "x") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
