package sa

import (
	"cmp"
	"sync/atomic"
)

// Number completes the 32-bit sequence number of an ESN packet: it returns the 64-bit
// number ending in low that is nearest to t, the highest number authenticated so far. It
// is never below 0; of two equally near the higher wins (RFC 4303 appendix A2 with
// W = 2^31).
func Number(t uint64, low uint32) uint64 {
	ahead := low - uint32(t) // distance from t modulo 2^32
	if ahead <= 1<<31 {
		if n := t + uint64(ahead); n >= t {
			return n
		}
		return t&^0xffffffff | uint64(low) // beyond the last number of all
	}
	if behind := uint64(-ahead); behind <= t {
		return t - behind
	}
	return t + uint64(ahead)
}

// Mark is what one side knows of an SA's sequence numbers: T, the highest number
// authenticated, or at first the high half to begin with. Several goroutines may use it.
type Mark struct {
	t    atomic.Uint64 // 0: nothing authenticated yet
	high atomic.Uint32
	esn  bool
}

// NewMark makes the mark of an SA, which starts at Seq or SeqHigh, or for an SA that has
// sent, and is to open what it sent, at OSeq.
func NewMark(s *SA) *Mark {
	if !s.ESN {
		return &unextended
	}
	m := &Mark{esn: true}
	m.high.Store(s.SeqHigh)
	m.t.Store(cmp.Or(s.Seq, s.OSeq))
	return m
}

var unextended Mark // of all SAs without ESN

// ESN reports whether the mark is that of an SA with extended numbers. Others never change.
func (m *Mark) ESN() bool { return m.esn }

// Number is the whole sequence number of a packet whose header carries low.
func (m *Mark) Number(low uint32) uint64 {
	if !m.esn {
		return uint64(low)
	}
	if t := m.t.Load(); t != 0 {
		return Number(t, low)
	}
	return uint64(m.high.Load())<<32 | uint64(low)
}

// Authenticated raises T to n, which a valid ICV must have proven.
func (m *Mark) Authenticated(n uint64) {
	if !m.esn {
		return
	}
	for t := m.t.Load(); n > t; t = m.t.Load() {
		if m.t.CompareAndSwap(t, n) {
			return
		}
	}
}

// Update sets the high half. Before the first authenticated number it replaces SeqHigh;
// later it raises T to h<<32 if that is higher.
func (m *Mark) Update(h uint32) {
	switch {
	case !m.esn:
		return
	case m.t.Load() == 0:
		m.high.Store(h)
	default:
		m.Authenticated(uint64(h) << 32)
	}
}

// T is the highest number authenticated, 0 before the first.
func (m *Mark) T() uint64 { return m.t.Load() }

// FirstNumber is the number of the first packet to be sent.
func (s *SA) FirstNumber() uint64 { return max(s.OSeq, uint64(s.SeqHigh)<<32) + 1 }

// HighHalf is the high half that the numbers begin with, in either direction.
func (s *SA) HighHalf() uint32 { return max(uint32(s.Seq>>32), uint32(s.OSeq>>32), s.SeqHigh) }
