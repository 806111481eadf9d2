package sa

import (
	"net/netip"
	"sync/atomic"
)

// index is where a Table's readers look. The first bits of an SPI's hash choose a part,
// the others one of its slots; a slot is a chain. Each part grows by itself, so that no
// change takes longer than a thousandth of the table. One goroutine at a time may change
// an index. Readers see each change whole, because links are never written again.
type index[T any] [1 << partBits]atomic.Pointer[part[T]]

const (
	partBits   = 10
	firstSlots = 2 // of a part; from then on twice as many
	keepGone   = 4 // deleted identities remembered per slot
)

// part is one part's slots: at least as many as SAs, at most twice as many.
type part[T any] struct {
	slots []atomic.Pointer[link[T]]
	used  int // SAs; the changing goroutine's alone
}

// link is one SA of a chain, or one that was deleted from it. It is immutable. It has the
// SPI so that other SAs can be passed over without reading them.
type link[T any] struct {
	spi   uint32
	entry *Entry[T] // nil: deleted; gone is then its identity
	gone  *ID
	next  *link[T]
}

// hash spreads consecutive SPIs, and those that differ only in high bits, over its high
// bits (Fibonacci hashing).
func hash(spi uint32) uint32 { return spi * 0x9e3779b1 }

func (x *index[T]) part(spi uint32) *atomic.Pointer[part[T]] {
	return &x[hash(spi)>>(32-partBits)]
}

func (p *part[T]) slot(spi uint32) *atomic.Pointer[link[T]] {
	return &p.slots[uint64(hash(spi)<<partBits)*uint64(len(p.slots))>>32]
}

// chain is the first link of the SPI's slot.
func (x *index[T]) chain(spi uint32) *link[T] {
	if p := x.part(spi).Load(); p != nil {
		return p.slot(spi).Load()
	}
	return nil
}

// find is the entry of an SA; nil if the index does not have it.
func (x *index[T]) find(id ID) *Entry[T] { return x.chain(uint32(id.SPI)).find(id) }

// clone is an index with the same parts.
func (x *index[T]) clone() *index[T] {
	y := new(index[T])
	for i := range x {
		y[i].Store(x[i].Load())
	}
	return y
}

// clone is a part with the same chains.
func (p *part[T]) clone() *part[T] {
	q := &part[T]{slots: make([]atomic.Pointer[link[T]], len(p.slots)), used: p.used}
	for i := range p.slots {
		q.slots[i].Store(p.slots[i].Load())
	}
	return q
}

// room is the SPI's part, grown if it has no room for one more SA.
func (x *index[T]) room(spi uint32) *part[T] {
	old := x.part(spi).Load()
	if old != nil && old.used < len(old.slots) {
		return old
	}
	p := &part[T]{slots: make([]atomic.Pointer[link[T]], firstSlots)}
	if old != nil {
		p = &part[T]{slots: make([]atomic.Pointer[link[T]], 2*len(old.slots)), used: old.used}
		for i := range old.slots {
			p.take(old.slots[i].Load())
		}
	}
	x.part(spi).Store(p)
	return p
}

// take copies a chain's links to where they belong, the last one first: what was deleted
// earlier stays after what was deleted later.
func (p *part[T]) take(l *link[T]) {
	if l == nil {
		return
	}
	p.take(l.next)
	slot := p.slot(l.spi)
	slot.Store(&link[T]{l.spi, l.entry, l.gone, slot.Load()})
}

// add puts an SA into the index, in place of one of its identity, alive or deleted.
func (x *index[T]) add(e *Entry[T]) {
	p, id := x.room(e.SPI), e.ID()
	slot := p.slot(e.SPI)
	old := slot.Load()
	if old.find(id) == nil {
		p.used++
	}
	slot.Store(&link[T]{e.SPI, e, nil, old.without(id, keepGone)})
}

// bury takes the SA with that identity out of the index, and remembers that it was there.
func (x *index[T]) bury(id ID) {
	spi := uint32(id.SPI)
	p := x.part(spi).Load()
	if p == nil {
		p = x.room(spi)
	}
	slot := p.slot(spi)
	old := slot.Load()
	if old.find(id) != nil {
		p.used--
	}
	slot.Store(&link[T]{spi, nil, &id, old.without(id, keepGone-1)})
}

// without is the chain without the SA of that identity, alive or deleted, and with the
// first keep of the deleted ones.
func (l *link[T]) without(id ID, keep int) *link[T] {
	switch {
	case l == nil:
		return nil
	case l.spi == uint32(id.SPI) && l.identity() == id:
		return l.next.without(id, keep)
	case l.gone != nil && keep == 0:
		return l.next.without(id, 0)
	case l.gone != nil:
		keep--
	}
	next := l.next.without(id, keep)
	if next == l.next {
		return l
	}
	return &link[T]{l.spi, l.entry, l.gone, next}
}

func (l *link[T]) identity() ID {
	if l.entry == nil {
		return *l.gone
	}
	return l.entry.ID()
}

// each calls f for all SAs in the index, which may change meanwhile.
func (x *index[T]) each(f func(*Entry[T])) {
	for i := range x {
		if p := x[i].Load(); p != nil {
			for j := range p.slots {
				for l := p.slots[j].Load(); l != nil; l = l.next {
					if l.entry != nil {
						f(l.entry)
					}
				}
			}
		}
	}
}

// find is the entry of an SA in the chain; nil if it is not there.
func (l *link[T]) find(id ID) *Entry[T] {
	for ; l != nil; l = l.next {
		if l.spi == uint32(id.SPI) && l.entry != nil && l.entry.ID() == id {
			return l.entry
		}
	}
	return nil
}

// miss says why nothing in the chain matched.
func (l *link[T]) miss(spi uint32, dst, src netip.Addr, encap bool) Miss {
	why := MissSPI
	for ; l != nil; l = l.next {
		if l.spi != spi {
			continue
		}
		id := l.identity()
		fits := rank(id.Dst, id.Src, dst, src) > 0
		switch {
		case l.entry != nil && fits:
			return MissEncap
		case l.entry != nil:
			why = max(why, MissAddress)
		case fits:
			why = max(why, MissDeleted)
		}
	}
	return why
}
