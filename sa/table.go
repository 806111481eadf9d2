package sa

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Errors of a Table's changes.
var (
	ErrFull    = errors.New("the SA table is full")
	ErrUnknown = errors.New("no such SA in the table")
	ErrExists  = errors.New("an SA with this protocol, SPI, destination and source is in the table already")
	ErrBundle  = errors.New("expected one SA, or an AH and the ESP SA beneath it, of one destination and mode")
)

// Entry is an SA in a table. Value is what the owner of the table derived from
// the SA once, when it was added. All but Mark is immutable once in a table.
type Entry[T any] struct {
	*SA
	Handle  uint32    // never 0 once in a table
	Mark    *Mark     //
	Partner *Entry[T] // of a bundle: the ESP entry of the AH one, and the reverse
	Value   T
}

// Miss says why Lookup found nothing.
type Miss uint8

// The misses.
const (
	Found       Miss = iota
	MissSPI          // no SA has this SPI
	MissAddress      // one has it, for another destination or source
	MissEncap        // one has it, but UDP encapsulation differs
	MissDeleted      // one had it and was deleted
)

// Match is what Lookup found: at most one SA of each protocol.
type Match[T any] struct {
	ESP, AH *Entry[T]
	Miss    Miss
}

// Table finds SAs by SPI and addresses. Readers never lock and see each change
// whole; changes may run beside them. A bundle (an AH and an ESP entry) is
// added, deleted and counted as one. Make one with NewTable.
type Table[T any] struct {
	buckets  atomic.Pointer[[]atomic.Pointer[bucket[T]]]
	pressure atomic.Bool

	mu         sync.Mutex // held by changes
	byHandle   map[uint32]*Entry[T]
	capacity   int
	bundles    int
	lastHandle uint32
	forced     bool
}

// bucket is immutable; gone are the last few identities deleted from it.
type bucket[T any] struct {
	entries []*Entry[T]
	gone    []ID
}

const (
	firstBuckets = 64
	keepGone     = 4 // deleted identities remembered per bucket
)

// NewTable makes a table for that many SA bundles; 0 sets no bound.
func NewTable[T any](capacity int) *Table[T] {
	t := &Table[T]{capacity: capacity, byHandle: map[uint32]*Entry[T]{}}
	t.store(make([]atomic.Pointer[bucket[T]], firstBuckets))
	return t
}

func (t *Table[T]) store(b []atomic.Pointer[bucket[T]]) { t.buckets.Store(&b) }

// at is the bucket of an SPI. The product's high bits choose it: they spread
// SPIs that count upwards and those that differ in their high bits only
// (Fibonacci hashing), which the low bits do not.
func at[T any](buckets []atomic.Pointer[bucket[T]], spi uint32) *atomic.Pointer[bucket[T]] {
	return &buckets[uint64(spi*0x9e3779b1)*uint64(len(buckets))>>32]
}

// Lookup finds the SAs of a packet (RFC 4301 section 4.1): the most specific
// match wins, destination and source before destination before neither.
func (t *Table[T]) Lookup(spi uint32, dst, src netip.Addr, encap bool) Match[T] {
	b := at(*t.buckets.Load(), spi).Load()
	if b == nil {
		return Match[T]{Miss: MissSPI}
	}
	var m Match[T]
	var espRank, ahRank int
	for _, e := range b.entries {
		if e.SPI != spi || e.Encap != encap {
			continue
		}
		switch rank := rank(e.SA, dst, src); {
		case e.Protocol == ESP && rank > espRank:
			m.ESP, espRank = e, rank
		case e.Protocol == AH && rank > ahRank:
			m.AH, ahRank = e, rank
		}
	}
	if m.ESP == nil && m.AH == nil {
		m.Miss = b.miss(spi, dst, src, encap)
	}
	return m
}

// rank is 0 where the SA does not match, and higher the more specific it is.
func rank(s *SA, dst, src netip.Addr) int {
	switch {
	case !s.Dst.IsValid():
		return 1
	case s.Dst != dst:
		return 0
	case !s.Src.IsValid():
		return 2
	case s.Src != src:
		return 0
	}
	return 3
}

// miss finds the reason for which nothing matched.
func (b *bucket[T]) miss(spi uint32, dst, src netip.Addr, encap bool) Miss {
	why := MissSPI
	for _, e := range b.entries {
		if e.SPI != spi {
			continue
		}
		if rank(e.SA, dst, src) > 0 && e.Encap != encap {
			return MissEncap
		}
		why = MissAddress
	}
	for _, id := range b.gone {
		if uint32(id.SPI) == spi && rank(&SA{Dst: id.Dst, Src: id.Src}, dst, src) > 0 {
			return MissDeleted
		}
	}
	return why
}

// Add puts one SA, or the AH and the ESP SA of a bundle, into the table: all or
// nothing. It sets Handle, Mark and Partner. Errors are ErrBundle, ErrFull and
// ErrExists.
func (t *Table[T]) Add(bundle ...*Entry[T]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !whole(bundle) {
		return ErrBundle
	}
	if t.capacity > 0 && t.bundles == t.capacity {
		return fmt.Errorf("%w (%d bundles)", ErrFull, t.capacity)
	}
	for _, e := range bundle {
		if t.Find(e.ID()) != nil {
			return fmt.Errorf("%s: %w", e.SA, ErrExists)
		}
	}
	t.insert(bundle)
	return nil
}

// whole tells whether these are one SA, or the AH and the ESP SA of a bundle.
// Nothing beneath AH is UDP-encapsulated.
func whole[T any](bundle []*Entry[T]) bool {
	if len(bundle) != 2 {
		return len(bundle) == 1
	}
	ah, esp := bundle[0], bundle[1]
	return ah.Protocol == AH && esp.Protocol == ESP && ah.Dst == esp.Dst && ah.Mode == esp.Mode && !esp.Encap
}

func (t *Table[T]) insert(bundle []*Entry[T]) {
	if len(bundle) == 2 {
		bundle[0].Partner, bundle[1].Partner = bundle[1], bundle[0]
	}
	t.grow(len(t.byHandle) + len(bundle))
	for _, e := range bundle {
		if e.Mark == nil {
			e.Mark = NewMark(e.SA)
		}
		if e.Handle == 0 {
			e.Handle = t.newHandle()
		}
		t.byHandle[e.Handle] = e
		t.edit(e.SPI, func(b *bucket[T]) {
			b.entries = append(b.entries, e)
			b.forget(e.ID())
		})
	}
	t.bundles++
	t.setPressure()
}

func (t *Table[T]) newHandle() uint32 {
	for {
		t.lastHandle++
		if _, used := t.byHandle[t.lastHandle]; !used && t.lastHandle != 0 {
			return t.lastHandle
		}
	}
}

// edit replaces the bucket of spi by a changed copy.
func (t *Table[T]) edit(spi uint32, change func(*bucket[T])) {
	slot := at(*t.buckets.Load(), spi)
	b := &bucket[T]{}
	if old := slot.Load(); old != nil {
		b.entries = append(b.entries, old.entries...)
		b.gone = append(b.gone, old.gone...)
	}
	change(b)
	slot.Store(b)
}

// grow doubles the buckets before they hold more than two entries on average.
func (t *Table[T]) grow(entries int) {
	old := *t.buckets.Load()
	if entries <= 2*len(old) {
		return
	}
	wider := make([]atomic.Pointer[bucket[T]], 2*len(old))
	for i := range old {
		b := old[i].Load()
		if b == nil {
			continue
		}
		for _, e := range b.entries {
			into := fresh(wider, e.SPI)
			into.entries = append(into.entries, e)
		}
		for _, id := range b.gone {
			into := fresh(wider, uint32(id.SPI))
			into.gone = append(into.gone, id)
		}
	}
	t.store(wider)
}

// fresh is the bucket of spi in an array that no reader sees yet.
func fresh[T any](buckets []atomic.Pointer[bucket[T]], spi uint32) *bucket[T] {
	slot := at(buckets, spi)
	if slot.Load() == nil {
		slot.Store(&bucket[T]{})
	}
	return slot.Load()
}

// Find returns the entry of one SA, nil if it is not in the table.
func (t *Table[T]) Find(id ID) *Entry[T] {
	if b := at(*t.buckets.Load(), uint32(id.SPI)).Load(); b != nil {
		for _, e := range b.entries {
			if e.ID() == id {
				return e
			}
		}
	}
	return nil
}

// Delete takes the SA with that handle out of the table, with its bundle
// partner. Frames looked up earlier finish on it. The error is ErrUnknown.
func (t *Table[T]) Delete(handle uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byHandle[handle]
	if e == nil {
		return ErrUnknown
	}
	for _, gone := range []*Entry[T]{e, e.Partner} {
		if gone == nil {
			continue
		}
		delete(t.byHandle, gone.Handle)
		t.edit(gone.SPI, func(b *bucket[T]) { b.remove(gone) })
	}
	t.bundles--
	t.setPressure()
	return nil
}

func (b *bucket[T]) remove(e *Entry[T]) {
	for i := range b.entries {
		if b.entries[i] == e {
			b.entries = append(b.entries[:i], b.entries[i+1:]...)
			break
		}
	}
	b.bury(e.ID())
}

func (b *bucket[T]) bury(id ID) {
	b.gone = append(b.gone, id)
	if len(b.gone) > keepGone {
		b.gone = b.gone[1:]
	}
}

func (b *bucket[T]) forget(id ID) {
	for i := range b.gone {
		if b.gone[i] == id {
			b.gone = append(b.gone[:i], b.gone[i+1:]...)
			return
		}
	}
}

// Replace makes bundles the whole content of the table, in one step for the
// readers. An SA that was there before, unchanged, keeps its handle and its
// mark; a mark without T only where SeqHigh and SeqLow say nothing new. On an
// error the table is as it was.
func (t *Table[T]) Replace(bundles [][]*Entry[T]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := NewTable[T](t.capacity)
	next.lastHandle = t.lastHandle
	for _, bundle := range bundles {
		for _, e := range bundle {
			if old := t.Find(e.ID()); old != nil && old.Same(e.SA) {
				e.Handle = old.Handle
				if old.Mark.T() != 0 || e.SeqHigh == old.SeqHigh && e.SeqLow == nil {
					e.Mark = old.Mark
				}
			}
		}
	}
	for _, bundle := range bundles {
		if err := next.Add(bundle...); err != nil {
			return err
		}
	}
	next.remember(t)
	t.buckets.Store(next.buckets.Load())
	t.byHandle, t.bundles, t.lastHandle = next.byHandle, next.bundles, next.lastHandle
	t.setPressure()
	return nil
}

// remember marks as deleted what was in old, or deleted from it, and is not in t.
func (t *Table[T]) remember(old *Table[T]) {
	buckets := *old.buckets.Load()
	for i := range buckets {
		if b := buckets[i].Load(); b != nil {
			for _, id := range b.gone {
				t.bury(id)
			}
			for _, e := range b.entries {
				t.bury(e.ID())
			}
		}
	}
}

func (t *Table[T]) bury(id ID) {
	if t.Find(id) == nil {
		t.edit(uint32(id.SPI), func(b *bucket[T]) { b.bury(id) })
	}
}

// Flush empties the table.
func (t *Table[T]) Flush() { _ = t.Replace(nil) }

// List returns the entries in no particular order.
func (t *Table[T]) List() []*Entry[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Entry[T], 0, len(t.byHandle))
	for _, e := range t.byHandle {
		all = append(all, e)
	}
	return all
}

// Update tells the SA's mark the high half of its sequence number (Mark.Update).
// The error is ErrUnknown.
func (t *Table[T]) Update(handle, high uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byHandle[handle]
	if e == nil {
		return ErrUnknown
	}
	e.Mark.Update(high)
	return nil
}

// UnderPressure tells whether the table asks for SAs to be deleted: where at
// most a sixteenth of its capacity is free, or where ForcePressure says so.
func (t *Table[T]) UnderPressure() bool { return t.pressure.Load() }

// ForcePressure makes the table ask for deletions however full it is.
func (t *Table[T]) ForcePressure(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forced = on
	t.setPressure()
}

func (t *Table[T]) setPressure() {
	full := t.capacity > 0 && t.bundles >= t.capacity-t.capacity/16
	t.pressure.Store(t.forced || full)
}
