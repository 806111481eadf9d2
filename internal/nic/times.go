package nic

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	NumTimes = 16 // buckets

	sampled  = 64 // one batch in so many has its time taken; a power of two
	shortest = 10 // the first bucket is up to 2^10 ns
)

// Times counts frames by how long they were in the NIC: from when their batch was
// received until it was given to be written, its stages in between. Of Frames,
// number i counts those of up to TimeBound(i), the last one all that were longer.
type Times struct {
	Frames [NumTimes]uint64
	Sum    time.Duration
}

// TimeBound is up to how long the frames of a bucket were in the NIC: 1.024 us, and
// with each further bucket twice as long. The last one has no bound.
func TimeBound(bucket int) time.Duration { return 1 << (shortest + bucket) }

// clock takes the time of one batch in 64, one direction's of one worker, with two looks
// at the clock. Others may read what is counted.
type clock struct {
	batches uint64 // the worker's
	began   time.Time
	_       [64]byte
	frames  [NumTimes]atomic.Uint64
	sum     atomic.Int64
}

// begin is called with each batch received.
func (c *clock) begin() {
	if c.batches%sampled == 0 {
		c.began = time.Now()
	}
}

// end is called when it was given to be written.
func (c *clock) end(frames int) {
	if c.batches%sampled == 0 {
		c.count(time.Since(c.began), frames)
	}
	c.batches++
}

func (c *clock) count(took time.Duration, frames int) {
	bucket := max(bits.Len64(uint64(max(took-1, 0)))-shortest, 0)
	c.frames[min(bucket, NumTimes-1)].Add(uint64(frames))
	c.sum.Add(int64(took) * int64(frames))
}

// addTo adds what was counted.
func (c *clock) addTo(t *Times) {
	for i := range c.frames {
		t.Frames[i] += c.frames[i].Load()
	}
	t.Sum += time.Duration(c.sum.Load())
}

// Times gives how long frames were in the NIC on either way, of one batch in 64. It may
// be called at any time.
func (n *NIC) Times() (toHost, toWire Times) {
	for _, w := range n.workers {
		w.inward.addTo(&toHost)
		w.outward.addTo(&toWire)
	}
	return toHost, toWire
}
