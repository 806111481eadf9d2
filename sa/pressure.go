package sa

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// use is when a bundle was last used, whether it is to be given up, and what of it
// failed.
type use struct {
	second atomic.Uint32            // by the table's clock; before the first use, when it was added
	asked  atomic.Uint32            // asked or told
	failed atomic.Pointer[failures] // nil while none has, as of most
}

// What was asked for, as bits.
const (
	asked = 1 << iota // the bundle is to be given up
	told              // a frame's reader was asked for that
)

// failures are the frames of a bundle's AH SA and of its ESP SA that have failed.
type failures struct {
	frames [2]atomic.Uint64
	why    [2]atomic.Uint32
}

// Use notes an authentic packet on an SA of the table.
func (t *Table[T]) Use(e *Entry[T]) {
	if now := t.seconds.Load(); e.use.second.Load() != now {
		e.use.second.Store(now)
	}
}

// Asks reports whether the table wants the SA deleted.
func (t *Table[T]) Asks(e *Entry[T]) bool {
	if !t.pressure.Load() {
		return false
	}
	is := e.use.asked.Load()
	if !t.urgent.Load() && is&asked == 0 {
		return false
	}
	if is&told == 0 {
		e.use.asked.Or(told)
	}
	return true
}

// Asked reports whether the SA's deletion was asked for since the table has been under
// pressure.
func (t *Table[T]) Asked(e *Entry[T]) bool { return e.use.asked.Load()&told != 0 }

// Fail notes that a frame failed at an SA of the table, and why, in the caller's
// numbers.
func (t *Table[T]) Fail(e *Entry[T], why uint16) {
	f := e.use.failed.Load()
	if f == nil {
		e.use.failed.CompareAndSwap(nil, &failures{})
		f = e.use.failed.Load()
	}
	f.frames[half(e)].Add(1)
	f.why[half(e)].Store(uint32(why))
}

// Failed is how many frames have failed at the SA, and why the latest did.
func (t *Table[T]) Failed(e *Entry[T]) (frames uint64, why uint16) {
	f := e.use.failed.Load()
	if f == nil {
		return 0, 0
	}
	return f.frames[half(e)].Load(), uint16(f.why[half(e)].Load())
}

func half[T any](e *Entry[T]) int {
	if e.Protocol == AH {
		return 0
	}
	return 1
}

// LastUse is how many seconds ago the SA was last used, or was added.
func (t *Table[T]) LastUse(e *Entry[T]) uint32 { return t.seconds.Load() - e.use.second.Load() }

// UnderPressure reports whether the table asks for SAs to be deleted: at most a sixteenth
// of its capacity is free, or ForcePressure says so.
func (t *Table[T]) UnderPressure() bool { return t.pressure.Load() }

// ForcePressure makes the table ask for the deletion of every SA that is used, full or not.
func (t *Table[T]) ForcePressure(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forced = on
	t.setPressure()
}

// setPressure sees how full the table is: with no room left every SA that is used is asked
// for, else those that Tick chooses.
func (t *Table[T]) setPressure() {
	t.urgent.Store(t.forced || t.capacity > 0 && t.bundles == t.capacity)
	t.pressure.Store(t.forced || t.capacity > 0 && t.bundles >= t.capacity-t.capacity/16)
}

// Tick is called once a second, by one goroutine. While the table is under pressure, each
// Tick marks a further sixteenth of the bundles to be asked for, the least recently used
// first. An SA is asked for on a packet of its own, so one without packets frees nothing.
func (t *Table[T]) Tick() {
	defer t.seconds.Add(1)
	if !t.pressure.Load() {
		if t.asked > 0 {
			t.asked = 0
			t.index.Load().each(func(e *Entry[T]) {
				e.use.asked.Store(0)
			})
		}
		return
	}
	var all []*use
	t.index.Load().each(func(e *Entry[T]) {
		if e.Partner == nil || e.Protocol == AH {
			all = append(all, e.use)
		}
	})
	t.asked = min(t.asked+max(t.capacity/16, 1), len(all))
	seconds := make(map[*use]uint32, len(all)) // which frames change meanwhile
	for _, u := range all {
		seconds[u] = u.second.Load()
		if u.asked.Load()&asked != 0 {
			seconds[u] = 0
		}
	}
	slices.SortFunc(all, func(a, b *use) int { return cmp.Compare(seconds[a], seconds[b]) })
	for _, u := range all[:t.asked] {
		u.asked.Or(asked)
	}
}
