package sa

// handles finds a table's entries by their handles. These are given out in turn, so that
// neighbours share a page, and a handle takes eight bytes.
type handles[T any] struct {
	pages map[uint32]*page[T]
	n     int
}

const pageBits = 6

type page[T any] struct {
	at   [1 << pageBits]*Entry[T]
	used int
}

func newHandles[T any]() handles[T] { return handles[T]{pages: map[uint32]*page[T]{}} }

func (h *handles[T]) len() int { return h.n }

// get is the entry of a handle; nil if there is none.
func (h *handles[T]) get(handle uint32) *Entry[T] {
	if p := h.pages[handle>>pageBits]; p != nil {
		return p.at[handle%(1<<pageBits)]
	}
	return nil
}

// set gives a handle to an entry.
func (h *handles[T]) set(handle uint32, e *Entry[T]) {
	p := h.pages[handle>>pageBits]
	if p == nil {
		p = new(page[T])
		h.pages[handle>>pageBits] = p
	}
	at := &p.at[handle%(1<<pageBits)]
	if *at == nil {
		p.used++
		h.n++
	}
	*at = e
}

// drop takes a handle back, which an entry has.
func (h *handles[T]) drop(handle uint32) {
	p := h.pages[handle>>pageBits]
	p.at[handle%(1<<pageBits)] = nil
	h.n--
	if p.used--; p.used == 0 {
		delete(h.pages, handle>>pageBits)
	}
}

// each calls f with every entry, in no particular order.
func (h *handles[T]) each(f func(*Entry[T])) {
	for _, p := range h.pages {
		for _, e := range p.at {
			if e != nil {
				f(e)
			}
		}
	}
}
