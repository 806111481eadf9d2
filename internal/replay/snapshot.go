package replay

import (
	"errors"
	"fmt"
	"math/bits"

	"tapsec/sa"
)

// Snapshot is all that a Window knows. In JSON the bits are base64.
type Snapshot struct {
	Size    uint32 `json:"size"` // packets, 0 if off
	Off     bool   `json:"off,omitempty"`
	Floor   uint64 `json:"floor"` // numbers up to here are refused
	Low     uint64 `json:"low"`   // lowest number accepted
	Top     uint64 `json:"top"`   // highest number accepted
	Seen    uint64 `json:"seen"`
	Replays uint64 `json:"replays"`
	Late    uint64 `json:"late"`
	Bits    []byte `json:"bits"` // bit i%8 of byte i/8: number Floor+1+i, up to Top, was accepted; empty if off
}

// Snapshot copies what the window knows.
func (w *Window) Snapshot() Snapshot {
	s := Snapshot{Size: w.Size(), Off: w.off, Floor: w.floor, Low: w.low, Top: w.top, Seen: w.seen, Replays: w.replays, Late: w.late}
	if w.off {
		return s
	}
	s.Bits = make([]byte, (s.span()+7)/8)
	for i := range s.span() {
		if word, bit := w.at(s.Floor + 1 + i); *word&bit != 0 {
			s.Bits[i/8] |= 1 << (i % 8)
		}
	}
	return s
}

// span is how many numbers the bits are about.
func (s *Snapshot) span() uint64 { return s.Top - s.Floor }

// has reports whether number Floor+1+i was accepted.
func (s *Snapshot) has(i uint64) bool { return s.Bits[i/8]&(1<<(i%8)) != 0 }

// Restore gives a fresh window what another one knew: it will refuse whatever that one would
// have refused. If the new one is smaller, more numbers are below it; if it is larger,
// numbers that the old one had forgotten count as late. An old one without protection
// remembered nothing, so all numbers up to its highest are late, and counting starts over.
// The error says why the snapshot makes no sense.
func (w *Window) Restore(s Snapshot) error {
	if err := s.Check(); err != nil {
		return err
	}
	w.top, w.replays, w.late = s.Top, s.Replays, s.Late
	if s.Off && !w.off {
		w.floor = s.Top
		return nil
	}
	w.low, w.seen = s.Low, s.Seen
	if w.off {
		return nil
	}
	w.floor = s.Floor
	if size := uint64(w.Size()); s.Top > size {
		w.floor = max(s.Floor, s.Top-size)
	}
	for i := w.floor - s.Floor; i < s.span(); i++ {
		if s.has(i) {
			word, bit := w.at(s.Floor + 1 + i)
			*word |= bit
		}
	}
	return nil
}

// Check says why no Window can have produced the snapshot.
func (s *Snapshot) Check() error {
	switch {
	case s.Off && (s.Size != 0 || s.Floor != 0 || len(s.Bits) != 0):
		return errors.New("without protection there is neither size nor floor nor bits")
	case !s.Off && (s.Size < sa.MinWindow || s.Size > sa.MaxWindow):
		return fmt.Errorf("%d packets, expected %d to %d", s.Size, sa.MinWindow, sa.MaxWindow)
	case s.Low > s.Top, s.Floor > s.Top:
		return fmt.Errorf("lowest number %d and floor %d, but highest number %d", s.Low, s.Floor, s.Top)
	case (s.Low == 0) != (s.Seen == 0):
		return fmt.Errorf("lowest number %d, but %d numbers accepted", s.Low, s.Seen)
	case s.Off:
		return nil
	}
	return s.checkBits()
}

// checkBits compares the bits with what was counted.
func (s *Snapshot) checkBits() error {
	n := s.span()
	if n > uint64(s.Size) || uint64(len(s.Bits)) != (n+7)/8 || n%8 != 0 && s.Bits[n/8]>>(n%8) != 0 {
		return fmt.Errorf("%d bytes of bits do not fit numbers %d to %d of a window of %d packets", len(s.Bits), s.Floor+1, s.Top, s.Size)
	}
	var inside uint64 // numbers accepted that are still in the window
	for _, b := range s.Bits {
		inside += uint64(bits.OnesCount8(b))
	}
	switch {
	case s.Seen == 0 && n != 0, s.Seen != 0 && (n == 0 || !s.has(n-1)):
		return fmt.Errorf("the highest number %d is not among the %d accepted ones", s.Top, s.Seen)
	case s.Seen == 0:
		return nil
	case s.Seen < inside, s.Low > s.Floor && s.Seen != inside, s.Seen-1 > s.Top-s.Low:
		return fmt.Errorf("%d numbers accepted from %d to %d, and %d of them in the window", s.Seen, s.Low, s.Top, inside)
	}
	return nil
}
