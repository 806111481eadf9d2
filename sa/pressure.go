package sa

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// use is when a bundle was last used, and whether it is to be given up.
type use struct {
	second atomic.Uint32 // of the table's; the one in which it was added, before the first use
	asked  atomic.Bool
}

// Use notes that an authentic packet came on an SA of the table.
func (t *Table[T]) Use(e *Entry[T]) {
	if now := t.seconds.Load(); e.use.second.Load() != now {
		e.use.second.Store(now)
	}
}

// Asks reports whether the SA's deletion is to be asked for.
func (t *Table[T]) Asks(e *Entry[T]) bool {
	return t.pressure.Load() && (t.urgent.Load() || e.use.asked.Load())
}

// LastUse is how many seconds ago the SA was last used, or was added.
func (t *Table[T]) LastUse(e *Entry[T]) uint32 { return t.seconds.Load() - e.use.second.Load() }

// UnderPressure reports whether the table asks for SAs to be deleted: where at
// most a sixteenth of its capacity is free, or where ForcePressure says so.
func (t *Table[T]) UnderPressure() bool { return t.pressure.Load() }

// ForcePressure makes the table ask for the deletion of every SA that is used,
// however full it is.
func (t *Table[T]) ForcePressure(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forced = on
	t.setPressure()
}

// setPressure looks at how full the table is: without any room every SA that is
// used is asked for, else those that Tick chooses.
func (t *Table[T]) setPressure() {
	t.urgent.Store(t.forced || t.capacity > 0 && t.bundles == t.capacity)
	t.pressure.Store(t.forced || t.capacity > 0 && t.bundles >= t.capacity-t.capacity/16)
}

// Tick is called once a second, by one goroutine. While the table is under
// pressure it has a further sixteenth of its bundles asked for, those least
// recently used first: who is asked for and has no packets cannot be told, so
// that one after the other comes in question.
func (t *Table[T]) Tick() {
	defer t.seconds.Add(1)
	if !t.pressure.Load() {
		if t.asked > 0 {
			t.asked = 0
			t.index.Load().each(func(e *Entry[T]) { e.use.asked.Store(false) })
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
		if u.asked.Load() {
			seconds[u] = 0
		}
	}
	slices.SortFunc(all, func(a, b *use) int { return cmp.Compare(seconds[a], seconds[b]) })
	for _, u := range all[:t.asked] {
		u.asked.Store(true)
	}
}
