package live

import (
	"context"
	"slices"
	"sync/atomic"

	"tapsec/capture"
	"tapsec/status"
)

// Reader takes frames from a Tap. One goroutine may use it.
type Reader struct {
	tap      *Tap
	wants    func(*status.Trailer) bool
	rings    []*ring // by queue
	sleeping atomic.Bool
	woken    chan struct{}
}

// Pair is a frame as it came and as it is delivered.
type Pair struct {
	Came, Left []byte // Left without the trailer
	Trailer    status.Trailer
	Fate       Fate
	Lost       uint64 // frames of its queue that are missing before it
}

// Next copies the waiting frame that was received first, and reports whether there is one.
func (r *Reader) Next(to *Pair) bool {
	var from *ring
	var earliest int64
	for _, ring := range r.rings {
		if e := ring.first(); e != nil && (from == nil || e.trailer.Received < earliest) {
			from, earliest = ring, e.trailer.Received
		}
	}
	if from == nil {
		return false
	}
	from.take(to)
	return true
}

// Wait returns nil when there may be frames, or the context's error when it has ended.
func (r *Reader) Wait(ctx context.Context) error {
	for {
		r.sleeping.Store(true)
		if slices.ContainsFunc(r.rings, func(ring *ring) bool { return ring.first() != nil }) {
			return nil
		}
		select {
		case <-r.woken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake is the worker's.
func (r *Reader) wake() {
	if r.sleeping.Load() && r.sleeping.CompareAndSwap(true, false) {
		select {
		case r.woken <- struct{}{}:
		default:
		}
	}
}

// Counts are the counts of the frames shown so far: all, those wanted, and how many of
// these are lost.
func (r *Reader) Counts() (c capture.Counts) {
	for _, ring := range r.rings {
		p := &ring.published
		c.Received += p.seen.Load()
		c.Accepted += p.accepted.Load()
		c.Lost += p.lost.Load()
	}
	return c
}

// Close ends reading from the NIC. Frames that wait can still be read.
func (r *Reader) Close() {
	r.tap.change(func(all []*Reader) []*Reader {
		n := slices.Index(all, r)
		if n < 0 {
			return all
		}
		c := r.Counts()
		r.tap.taken, r.tap.lost = r.tap.taken+c.Accepted-c.Lost, r.tap.lost+c.Lost
		return slices.Delete(all, n, n+1)
	})
}
