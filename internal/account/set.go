package account

import (
	"math/bits"
	"slices"
)

// set is a set of sequence numbers. The first run of consecutive ones costs no memory; the
// others are kept in pages. The zero set is empty and needs a budget before the first add.
type set struct {
	budget *int // pages that may still be made, shared with other sets

	n         uint64 // numbers in the set
	low, high uint64 // the lowest and the highest, if n is not 0

	first, last uint64 // the run: all from first to last are in the set, if n is not 0
	pages       map[uint64]*page
	forgotten   uint64 // lower numbers have been forgotten, and count as in the set
	blind       bool   // a number has not been kept for lack of memory

	page *page // of the last number outside the run
	at   uint64
}

const pageSize = 1024 // numbers

// page holds the numbers from at*pageSize on. One that is full is fullPage.
type page struct {
	n     int
	words [pageSize / 64]uint64
}

var fullPage = func() *page {
	p := &page{n: pageSize}
	for i := range p.words {
		p.words[i] = ^uint64(0)
	}
	return p
}()

// add puts a number into the set and reports whether it was new.
func (s *set) add(n uint64) bool {
	switch {
	case s.n == 0:
		s.first, s.last, s.low, s.high = n, n, n, n
	case n >= s.first && n <= s.last || n < s.forgotten:
		return false
	case s.holds(n):
		return false
	case n > 0 && n-1 == s.last:
		s.last = n
	default:
		s.put(n)
	}
	s.n++
	s.low, s.high = min(s.low, n), max(s.high, n)
	return true
}

// holds reports whether a page has n.
func (s *set) holds(n uint64) bool {
	if s.pages == nil {
		return false
	}
	p := s.pageOf(n / pageSize)
	return p != nil && p.words[n%pageSize/64]&(1<<(n%64)) != 0
}

func (s *set) pageOf(at uint64) *page {
	if s.page == nil || s.at != at {
		s.page, s.at = s.pages[at], at
	}
	return s.page
}

// put puts a number into its page.
func (s *set) put(n uint64) {
	at := n / pageSize
	p := s.pageOf(at)
	if p == nil {
		if *s.budget == 0 && !s.forget() {
			s.blind = true
			return
		}
		*s.budget--
		if s.pages == nil {
			s.pages = map[uint64]*page{}
		}
		p = &page{}
		s.pages[at], s.page = p, p
	}
	p.words[n%pageSize/64] |= 1 << (n % 64)
	if p.n++; p.n == pageSize {
		s.pages[at], s.page = fullPage, fullPage
	}
}

// forget lets go of the lower half of the pages, if there are two, and reports
// whether it did.
func (s *set) forget() bool {
	if len(s.pages) < 2 {
		return false
	}
	at := make([]uint64, 0, len(s.pages))
	for i := range s.pages {
		at = append(at, i)
	}
	slices.Sort(at)
	half := len(at) / 2
	for _, i := range at[:half] {
		delete(s.pages, i)
	}
	*s.budget += half
	s.forgotten = at[half] * pageSize
	s.page = nil
	return true
}

// free gives the pages back.
func (s *set) free() {
	if s.budget != nil {
		*s.budget += len(s.pages)
	}
	*s = set{}
}

// exact reports whether nothing was forgotten.
func (s *set) exact() bool { return s.forgotten == 0 && !s.blind }

// outside counts the numbers of s from low to high that are not in t.
func (s *set) outside(t *set, low, high uint64) (n uint64) {
	if s.n == 0 {
		return 0
	}
	count := func(word, in uint64) {
		in &^= t.word(word)
		if word == low/64 {
			in &= ^uint64(0) << (low % 64)
		}
		if word == high/64 {
			in &= ^uint64(0) >> (63 - high%64)
		}
		n += uint64(bits.OnesCount64(in))
	}
	for word := max(s.first, low) / 64; word <= min(s.last, high)/64; word++ {
		count(word, s.run(word))
	}
	for at, p := range s.pages {
		for i, in := range p.words {
			if word := at*uint64(len(p.words)) + uint64(i); word >= low/64 && word <= high/64 {
				count(word, in&^s.run(word))
			}
		}
	}
	return n
}

// word has the bits of the numbers from 64*i to 64*i+63.
func (s *set) word(i uint64) (w uint64) {
	if s.n == 0 {
		return 0
	}
	w = s.run(i)
	if p := s.pages[i*64/pageSize]; p != nil {
		w |= p.words[i%(pageSize/64)]
	}
	return w
}

// run is word for the first run alone.
func (s *set) run(i uint64) uint64 {
	if i < s.first/64 || i > s.last/64 {
		return 0
	}
	w := ^uint64(0)
	if i == s.first/64 {
		w &= ^uint64(0) << (s.first % 64)
	}
	if i == s.last/64 {
		w &= ^uint64(0) >> (63 - s.last%64)
	}
	return w
}
