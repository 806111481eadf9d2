package notify

import "testing"

// The watchdog hears of the program only where every worker has come round since.
func TestPulse(t *testing.T) {
	var p Pulse
	for i, step := range []struct {
		counts []uint64
		beats  bool
	}{
		{[]uint64{0, 0}, false}, // only looked
		{[]uint64{1, 1}, true},
		{[]uint64{1, 1}, false},
		{[]uint64{9, 1}, false}, // the second one hangs
		{[]uint64{10, 2}, true}, // and no longer does
		{[]uint64{11, 2}, false},
		{[]uint64{11, 3}, true}, // the first one has come round before
	} {
		if got := p.Beats(step.counts); got != step.beats {
			t.Errorf("step %d, %v: %v", i, step.counts, got)
		}
	}
}
