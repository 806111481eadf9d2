package nic

import (
	"testing"
	"time"
)

// A frame is counted in the first bucket whose bound it does not exceed.
func TestTimes(t *testing.T) {
	for took, bucket := range map[time.Duration]int{
		-1: 0, 0: 0, 1: 0, 1024: 0, 1025: 1, 2048: 1, 2049: 2, time.Millisecond: 10, TimeBound(NumTimes - 2): NumTimes - 2,
		TimeBound(NumTimes-2) + 1: NumTimes - 1, time.Hour: NumTimes - 1,
	} {
		var c clock
		var got Times
		c.count(took, 3)
		c.addTo(&got)
		want := Times{Sum: 3 * took}
		want.Frames[bucket] = 3
		if got != want {
			t.Errorf("%s: %v, expected %v", took, got, want)
		}
		if bucket < NumTimes-1 && took > TimeBound(bucket) || bucket > 0 && took <= TimeBound(bucket-1) {
			t.Errorf("%s is not within the bounds of bucket %d", took, bucket)
		}
	}
}

// One batch in 64 is measured, the first one among them.
func TestSampled(t *testing.T) {
	var c clock
	for range 2*sampled + 1 {
		c.begin()
		c.end(5)
	}
	var got Times
	c.addTo(&got)
	sum := uint64(0)
	for _, n := range got.Frames {
		sum += n
	}
	if sum != 3*5 {
		t.Errorf("%d frames are counted, expected those of 3 batches", sum)
	}
}
