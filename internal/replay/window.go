// Package replay is the sequence window of an SA (RFC 4303 section 3.4.3): a Window lets
// every number through once, and none that is too old for it. A Snapshot is all that it
// knows, so that another Window can continue.
package replay

import (
	"cmp"
	"fmt"

	"tapsec/sa"
)

// Window is the sequence window of one SA (RFC 4303 section 3.4.3), a ring of
// words as in RFC 6479: it lets every number through once, and none that is
// size or more below the highest. The zero Window works and holds
// sa.DefaultWindow packets.
//
// A Window is not safe for concurrent use, and must not be copied after its
// first Accept.
type Window struct {
	size uint32 // 0: sa.DefaultWindow
	off  bool   // lets everything but 0 through

	floor uint64 // numbers up to here are refused: 0, then whatever fell out of the window
	low   uint64 // lowest number accepted, 0 before the first
	top   uint64 // highest number accepted, or known to have been

	seen, replays, late uint64

	// The bit of number n is n%64 of word n/64, modulo the number of words, which
	// is a power of two large enough that no two words from floor+1 to top meet.
	// Bits of numbers above top are 0 in top's word and stale in the others.
	ring []uint64  // nil: own is the ring
	own  [2]uint64 // enough for 65 packets, wherever they begin
}

// New makes a window of sa.MinWindow to sa.MaxWindow packets; 0 stands for
// sa.DefaultWindow, never for no protection. It panics for any other size.
func New(size uint32) Window {
	size = cmp.Or(size, sa.DefaultWindow)
	if size < sa.MinWindow || size > sa.MaxWindow {
		panic(fmt.Sprintf("replay: a window of %d packets, expected %d to %d", size, sa.MinWindow, sa.MaxWindow))
	}
	w := Window{size: size}
	if n := ringLen(size); n > len(w.own) {
		w.ring = make([]uint64, n)
	}
	return w
}

// Off makes a window without replay protection: it accepts every number
// but 0, any number of times.
func Off() Window { return Window{off: true} }

// Of makes the window that an SA asks for.
func Of(s *sa.SA) Window {
	if s.ReplayOff {
		return Off()
	}
	return New(s.Window)
}

// ringLen is the number of words for size consecutive numbers, wherever in a
// word they begin, rounded up to a power of two.
func ringLen(size uint32) int {
	n := 2
	for n < (int(size)+62)/64+1 {
		n *= 2
	}
	return n
}

// Accept reports whether a packet may pass, and remembers its number, which a valid ICV must
// have proven: with ESN all 64 bits, otherwise the 32 bits, which never wrap (RFC 4303
// section 3.3.3). It does not allocate, and takes at most size/64 steps.
//
//  1. A number below the window is refused; 0 always is.
//  2. A number above the highest moves the window.
//  3. A number whose bit is set came before and is refused; otherwise it is set.
func (w *Window) Accept(seq uint64) bool {
	if seq <= w.floor {
		w.late++
		return false
	}
	if seq > w.top {
		w.advance(seq)
	}
	word, bit := w.at(seq)
	if *word&bit != 0 && !w.off {
		w.replays++
		return false
	}
	*word |= bit
	w.seen++
	if seq < w.low || w.low == 0 {
		w.low = seq
	}
	return true
}

// at returns the word that holds a number's bit, and the bit.
func (w *Window) at(seq uint64) (word *uint64, bit uint64) {
	ring := w.words()
	return &ring[seq/64&uint64(len(ring)-1)], 1 << (seq % 64)
}

func (w *Window) words() []uint64 {
	if w.ring != nil {
		return w.ring
	}
	return w.own[:]
}

// advance makes seq the highest number: the words that come into use are
// cleared, and the floor follows.
func (w *Window) advance(seq uint64) {
	ring := w.words()
	last := w.top / 64
	for i := range min(seq/64-last, uint64(len(ring))) {
		ring[(last+1+i)&uint64(len(ring)-1)] = 0
	}
	w.top = seq
	if size := uint64(w.Size()); seq > size && !w.off {
		w.floor = max(w.floor, seq-size)
	}
}

// Refuse makes the window refuse every number up to n from now on.
func (w *Window) Refuse(n uint64) {
	if n >= w.top {
		w.advance(n)
		w.low, w.seen = 0, 0 // counting starts over
	}
	if !w.off {
		w.floor = max(w.floor, n)
	}
}

// TakeOver makes the window refuse what an SA has received elsewhere: its highest number, and
// those that the bitmap has of the ones up to that.
func (w *Window) TakeOver(top uint64, received sa.Bitmap) {
	w.Refuse(top - uint64(received.Len()))
	for i := received.Len() - 1; i >= 0; i-- {
		if received.Has(i) {
			w.Accept(top - uint64(i))
		}
	}
}

// Top is the highest number accepted, or known to have been.
func (w *Window) Top() uint64 { return w.top }

// Size is the number of packets that the window holds, 0 where protection is
// off.
func (w *Window) Size() uint32 {
	if w.size == 0 && !w.off {
		return sa.DefaultWindow
	}
	return w.size
}

// State is a Window's state in numbers.
type State struct {
	Size    uint32 `json:"size"`          // packets, 0 if off
	Off     bool   `json:"off,omitempty"` // no replay protection
	Top     uint64 `json:"top"`           // highest number accepted
	Seen    uint64 `json:"seen"`          // numbers accepted
	Gaps    uint64 `json:"gaps"`          // numbers between the lowest and the highest accepted that never came; 0 if off
	Replays uint64 `json:"replays"`       // refused: seen before, in the window
	Late    uint64 `json:"late"`          // refused: 0, or below the window, whether seen before or not
}

// State takes constant time. Seen plus Replays plus Late is the number of calls of Accept.
func (w *Window) State() State {
	s := State{Size: w.Size(), Off: w.off, Top: w.top, Seen: w.seen, Replays: w.replays, Late: w.late}
	if w.low != 0 && !w.off {
		s.Gaps = w.top - w.low + 1 - w.seen // each number is accepted once
	}
	return s
}

// Refuses reports whether Accept would refuse a number, and whether because it lies below
// the window.
func (w *Window) Refuses(seq uint64) (refused, late bool) {
	switch {
	case seq <= w.floor:
		return true, true
	case seq > w.top || w.off:
		return false, false
	}
	word, bit := w.at(seq)
	return *word&bit != 0, false
}
