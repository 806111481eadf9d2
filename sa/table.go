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

// Entry is an SA in a table. Value is what the table's owner derived from the SA when it
// was added. All but Mark is immutable once in a table.
type Entry[T any] struct {
	*SA
	Handle  uint32    // never 0 once in a table
	round   uint32    // of the latest Replace that took it
	Mark    *Mark     // the table makes one if there is none
	Partner *Entry[T] // of a bundle: the ESP entry of the AH one, and the reverse
	Value   T
	InUDP   bool // it takes packets in UDP, too, though its SA has no Encap (mode auto)
	use     *use // of the whole bundle
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

// Table finds SAs by SPI and addresses. Readers never lock, and see each change whole. A
// bundle (an AH and an ESP entry) is added, deleted and counted as one. Make a Table with
// NewTable.
type Table[T any] struct {
	index    atomic.Pointer[index[T]]
	pressure atomic.Bool

	seconds atomic.Uint32 // the clock of Use; Tick counts them
	urgent  atomic.Bool   // every SA that is used is asked for

	mu         sync.Mutex // held by changes
	handles    handles[T]
	round      uint32
	capacity   int
	bundles    int
	lastHandle uint32
	forced     bool
	asked      int // bundles asked for since the pressure began; Tick's alone
}

// NewTable makes a table for that many SA bundles; 0 sets no bound.
func NewTable[T any](capacity int) *Table[T] {
	t := &Table[T]{capacity: capacity, handles: newHandles[T]()}
	t.index.Store(new(index[T]))
	return t
}

// Lookup finds the SAs of a packet (RFC 4301 section 4.1): the most specific
// match wins, destination and source before destination before neither.
func (t *Table[T]) Lookup(spi uint32, dst, src netip.Addr, encap bool) Match[T] {
	first := t.index.Load().chain(spi)
	var m Match[T]
	var espRank, ahRank int
	for l := first; l != nil; l = l.next {
		e := l.entry
		if l.spi != spi || e == nil || e.Encap != encap && !(encap && e.InUDP) {
			continue
		}
		switch rank := rank(e.Dst, e.Src, dst, src); {
		case e.Protocol == ESP && rank > espRank:
			m.ESP, espRank = e, rank
		case e.Protocol == AH && rank > ahRank:
			m.AH, ahRank = e, rank
		}
	}
	if m.ESP == nil && m.AH == nil {
		m.Miss = first.miss(spi, dst, src, encap)
	}
	return m
}

// rank is 0 if an SA between wantDst and wantSrc does not match, and higher the more
// specific it is.
func rank(wantDst, wantSrc, dst, src netip.Addr) int {
	switch {
	case !wantDst.IsValid():
		return 1
	case wantDst != dst:
		return 0
	case !wantSrc.IsValid():
		return 2
	case wantSrc != src:
		return 0
	}
	return 3
}

// Add puts one SA, or the AH and the ESP SA of a bundle, into the table: all or
// nothing. It sets Handle, Mark and Partner. Errors are ErrBundle, ErrFull and
// ErrExists.
func (t *Table[T]) Add(bundle ...*Entry[T]) error { return t.AddAll([][]*Entry[T]{bundle}) }

// AddAll is Add for several bundles, all or nothing.
func (t *Table[T]) AddAll(bundles [][]*Entry[T]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.capacity > 0 && t.bundles+len(bundles) > t.capacity {
		return fmt.Errorf("%w (%d bundles)", ErrFull, t.capacity)
	}
	more := map[ID]bool{}
	for _, bundle := range bundles {
		if err := t.fits(bundle); err != nil {
			return err
		}
		for _, e := range bundle {
			if more[e.ID()] {
				return fmt.Errorf("%s: %w", e.SA, ErrExists)
			}
			more[e.ID()] = true
		}
	}
	for _, bundle := range bundles {
		t.insert(bundle)
	}
	return nil
}

// fits is the error of a bundle that cannot come to those that are there.
func (t *Table[T]) fits(bundle []*Entry[T]) error {
	if !whole(bundle) {
		return ErrBundle
	}
	for _, e := range bundle {
		if t.Find(e.ID()) != nil {
			return fmt.Errorf("%s: %w", e.SA, ErrExists)
		}
	}
	return nil
}

// whole reports whether these are one SA, or the AH and the ESP SA of a bundle.
// Nothing beneath AH is UDP-encapsulated.
func whole[T any](bundle []*Entry[T]) bool {
	if len(bundle) != 2 {
		return len(bundle) == 1
	}
	ah, esp := bundle[0], bundle[1]
	return ah.Protocol == AH && esp.Protocol == ESP && ah.Dst == esp.Dst && ah.Mode == esp.Mode && !esp.Encap
}

func (t *Table[T]) insert(bundle []*Entry[T]) {
	t.complete(bundle)
	for _, e := range bundle { // both halves are whole before a reader finds one
		t.index.Load().add(e)
	}
	t.bundles++
	t.setPressure()
}

// complete gives the entries of a bundle what they lack.
func (t *Table[T]) complete(bundle []*Entry[T]) {
	if len(bundle) == 2 && bundle[0].Partner != bundle[1] {
		bundle[0].Partner, bundle[1].Partner = bundle[1], bundle[0]
	}
	used := &use{}
	used.second.Store(t.seconds.Load())
	for _, e := range bundle {
		if e.Mark == nil {
			e.Mark = NewMark(e.SA)
		}
		if e.use == nil {
			e.use = used
		}
		if e.Handle == 0 {
			e.Handle = t.newHandle()
		}
		t.handles.set(e.Handle, e)
	}
}

func (t *Table[T]) newHandle() uint32 {
	for {
		t.lastHandle++
		if t.lastHandle != 0 && t.handles.get(t.lastHandle) == nil {
			return t.lastHandle
		}
	}
}

// Find returns the entry of one SA, nil if it is not in the table.
func (t *Table[T]) Find(id ID) *Entry[T] { return t.index.Load().find(id) }

// Standing returns the entries of a bundle that is in the table with these very SAs, for
// Replace to keep as they are; nil if it is not.
func (t *Table[T]) Standing(bundle []*SA) []*Entry[T] {
	entries := make([]*Entry[T], 0, len(bundle))
	for _, s := range bundle {
		e := t.Find(s.ID())
		if e == nil || e.SA != s || (e.Partner == nil) != (len(bundle) == 1) {
			return nil
		}
		entries = append(entries, e)
	}
	if len(entries) == 2 && entries[0].Partner != entries[1] {
		return nil
	}
	return entries
}

// Entry returns the entry with that handle, nil if it is not in the table.
func (t *Table[T]) Entry(handle uint32) *Entry[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handles.get(handle)
}

// Delete takes the SA with that handle out of the table, with its bundle
// partner. Frames looked up earlier finish on it. The error is ErrUnknown.
func (t *Table[T]) Delete(handle uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.handles.get(handle)
	if e == nil {
		return ErrUnknown
	}
	for _, gone := range []*Entry[T]{e, e.Partner} {
		if gone == nil {
			continue
		}
		t.handles.drop(gone.Handle)
		t.index.Load().bury(gone.ID())
	}
	t.bundles--
	t.setPressure()
	return nil
}

// Bundles is how many bundles the table holds.
func (t *Table[T]) Bundles() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bundles
}

// Count is how many SAs the table holds.
func (t *Table[T]) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handles.len()
}

// Flush empties the table.
func (t *Table[T]) Flush() { _ = t.Replace(nil) }

// List returns the entries in no particular order.
func (t *Table[T]) List() []*Entry[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Entry[T], 0, t.handles.len())
	t.handles.each(func(e *Entry[T]) { all = append(all, e) })
	return all
}

// Each calls f with every entry, in no particular order, and holds nobody up: what is
// added or deleted meanwhile may be among them or not.
func (t *Table[T]) Each(f func(*Entry[T])) { t.index.Load().each(f) }

// Update tells the SA's mark the high half of its sequence number (Mark.Update).
// The error is ErrUnknown.
func (t *Table[T]) Update(handle, high uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.handles.get(handle)
	if e == nil {
		return ErrUnknown
	}
	e.Mark.Update(high)
	return nil
}
