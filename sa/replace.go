package sa

import "fmt"

// Replace makes bundles the whole content of the table, in one step for the readers. An
// unchanged SA keeps its handle. It keeps its mark, too, unless it brings one, or the mark
// has no T yet and the SA another SeqHigh, or a Seq. An entry that is in the table stays as
// it is. On an error nothing has changed. It costs what changes, and a look at each bundle.
//
//  1. Put what is new into an index that shares all else with the present one.
//  2. Let it go on from what it replaces.
//  3. Bury what is not among the bundles.
//  4. The readers get that index.
func (t *Table[T]) Replace(bundles [][]*Entry[T]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	r := &replacement[T]{table: t, index: t.index.Load().clone(), others: t.handles.len()}
	for i, bundle := range bundles {
		if t.capacity > 0 && i == t.capacity {
			return fmt.Errorf("%w (%d bundles)", ErrFull, t.capacity)
		}
		if err := r.take(bundle); err != nil {
			return err
		}
	}
	if err := r.goOn(); err != nil {
		return err
	}
	for _, e := range r.bury() {
		t.handles.drop(e.Handle)
	}
	for _, bundle := range r.added {
		t.complete(bundle)
	}
	t.index.Store(r.index)
	t.bundles = len(bundles)
	t.setPressure()
	return nil
}

// replacement is an index that is to take the place of a table's.
type replacement[T any] struct {
	table  *Table[T]
	index  *index[T]
	own    [1 << partBits]bool // parts; the others are the present index's, too
	added  [][]*Entry[T]
	others int // SAs that are in the table, and have not been taken
}

// take takes a bundle.
func (r *replacement[T]) take(bundle []*Entry[T]) error {
	if !whole(bundle) {
		return ErrBundle
	}
	stands := r.stands(bundle)
	for _, e := range bundle {
		now := e
		if !stands {
			now = r.index.find(e.ID())
		}
		if now != nil && now.round == r.table.round {
			return fmt.Errorf("%s: %w", e.SA, ErrExists)
		}
		if e.round = r.table.round; stands {
			r.others--
			continue
		}
		r.part(e.SPI)
		r.index.add(e)
	}
	if !stands {
		r.added = append(r.added, bundle)
	}
	return nil
}

// stands reports whether a bundle is in the table as it is.
func (r *replacement[T]) stands(bundle []*Entry[T]) bool {
	for _, e := range bundle {
		if e.Handle == 0 || r.table.handles.get(e.Handle) != e {
			return false
		}
	}
	return len(bundle) == 1 && bundle[0].Partner == nil || len(bundle) == 2 && bundle[0].Partner == bundle[1]
}

// part makes the part that has an SPI the replacement's own.
func (r *replacement[T]) part(spi uint32) {
	if i := hash(spi) >> (32 - partBits); !r.own[i] {
		r.own[i] = true
		if p := r.index[i].Load(); p != nil {
			r.index[i].Store(p.clone())
		}
	}
}

// goOn lets what is added go on from the SA that it replaces. The error is that of one
// that was taken as it is.
func (r *replacement[T]) goOn() error {
	for _, bundle := range r.added {
		for _, e := range bundle {
			old := r.table.Find(e.ID())
			switch {
			case old == nil || old == e:
				continue
			case old.round == r.table.round:
				return fmt.Errorf("%s: %w", e.SA, ErrExists)
			case !old.Same(e.SA):
				continue
			}
			e.Handle, e.use = old.Handle, old.use
			if e.Mark == nil && (old.Mark.T() != 0 || e.SeqHigh == old.SeqHigh && e.Seq == 0) {
				e.Mark = old.Mark
			}
		}
	}
	return nil
}

// bury buries what was not taken, and returns that and what was replaced.
func (r *replacement[T]) bury() (gone []*Entry[T]) {
	if r.others == 0 {
		return nil
	}
	r.table.handles.each(func(e *Entry[T]) {
		if e.round == r.table.round {
			return
		}
		gone = append(gone, e)
		if r.index.find(e.ID()) == e {
			r.part(e.SPI)
			r.index.bury(e.ID())
		}
	})
	return gone
}
