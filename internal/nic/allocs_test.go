package nic

import (
	"runtime"
	"testing"

	"tapsec/tap"
)

// Moving frames allocates nothing, in either direction, not even once a batch: what the process
// allocates in a round, to start the peer and hear of it, is fewer objects than there are batches.
func TestNoAllocationsPerFrame(t *testing.T) { engines(t, testNoAllocationsPerFrame) }

func testNoAllocationsPerFrame(t *testing.T) {
	for side, o := range map[string]order{"to host": {From: "wire", To: "host"}, "to wire": {From: "host", To: "wire"}} {
		t.Run(side, func(t *testing.T) {
			r := run(t, 1, func(int) []Stage { return []Stage{through{}} })
			o.Count, o.Window, o.Flows = frames, 300, 1
			warm := o
			warm.Count = 1000
			start(t, warm)(0)
			before := allocated()
			a := start(t, o)(0)
			objects := allocated() - before
			r.stop(t)
			if a.Received != frames {
				t.Errorf("peer saw %+v", a)
			}
			if objects >= frames/tap.Batch {
				t.Errorf("%d objects were allocated for %d frames", objects, frames)
			}
		})
	}
}

type through struct{}

func (through) Batch(frames [][]byte) [][]byte { return frames }

// allocated is how many objects the process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
