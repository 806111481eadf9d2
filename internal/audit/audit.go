// Package audit bounds what is reported of failing frames, so that a flood of them neither
// fills a log, nor slows good frames, nor hides a frame that fails for another reason or on
// another SA; and of states that change.
package audit

import (
	"sync"
	"time"
)

// How many events are reported in a second: for one reason on one SA, and for one reason on
// all SAs (contract, What is logged).
const (
	PerSA     = 5
	PerReason = 20
)

// Limiter is that bound. Its zero value works, and several goroutines may use it. A flood
// takes no memory: only the SAs of the few events reported in the current second are
// remembered.
//
// SA identifies an SA; its zero value is for frames without one.
type Limiter[SA comparable] struct {
	mu    sync.Mutex
	since time.Time          // when the current second began
	kinds [256]kind          // by reason
	lines map[key[SA]]uint64 // in the current second
}

type kind struct {
	lines      uint64 // in the current second
	suppressed uint64 // since that was last reported
}

type key[SA comparable] struct {
	reason uint8
	sa     SA
}

// Allow reports whether an event is to be reported and, if so, how many for that reason
// were suppressed since the last reported one.
func (l *Limiter[SA]) Allow(reason uint8, sa SA) (suppressed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	k, of := &l.kinds[reason], key[SA]{reason, sa}
	if k.lines >= PerReason || l.lines[of] >= PerSA {
		k.suppressed++
		return 0, false
	}
	k.lines++
	l.lines[of]++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}

// Silent calls report for each reason that has suppressed events but none reported in the
// current second; with all, as at the end, for each that has suppressed events. It is
// called once a second, so that suppressed events show up even if no more follow.
func (l *Limiter[SA]) Silent(all bool, report func(reason uint8, suppressed uint64)) {
	var left [256]uint64
	l.mu.Lock()
	l.turn()
	for reason := range l.kinds {
		if k := &l.kinds[reason]; all || k.lines == 0 {
			left[reason], k.suppressed = k.suppressed, 0
		}
	}
	l.mu.Unlock()
	for reason, n := range left {
		if n > 0 {
			report(uint8(reason), n)
		}
	}
}

// turn begins another second if the last one is over.
func (l *Limiter[SA]) turn() {
	now := time.Now()
	if l.lines != nil && now.Sub(l.since) < time.Second {
		return
	}
	l.since = now
	if l.lines == nil {
		l.lines = map[key[SA]]uint64{}
	}
	clear(l.lines)
	for reason := range l.kinds {
		l.kinds[reason].lines = 0
	}
}
