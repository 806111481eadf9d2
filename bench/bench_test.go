package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// TestDrain measures the smallest frames on every variant: each cell has its rounds, and every frame
// came out as it should.
func TestDrain(t *testing.T) {
	rig.Require(t)
	const rounds = 3
	r := newReport(nil)
	if err := r.drain(64, effort{rounds: rounds, cpu: time.Minute}); err != nil {
		t.Fatal(err)
	}
	r.divide()
	cells := len(r.variants()) * len(suites())
	if len(r.Rows) != cells || len(r.Losses)+len(r.Wrong) > 0 || r.Inspected != 2*cells*distinct {
		t.Errorf("%d rows, expected %d; %d frames inspected, expected %d; %v %v", len(r.Rows), cells, r.Inspected, 2*cells*distinct, r.Losses, r.Wrong)
	}
	for _, row := range r.Rows {
		if row.Rounds != rounds || row.CPUSpread.Q1 <= 0 || row.CPU < row.CPUSpread.Q1 || row.CPU > row.CPUSpread.Q3 || row.Rate <= 0 {
			t.Errorf("%+v", row)
		}
	}
	if len(r.Compare) != len(suites()) || r.Compare[0].Ratios["c/a"] <= 0 || (r.Compare[0].Ratios["d/a"] > 0) != r.ring {
		t.Errorf("%+v", r.Compare)
	}
}

// open makes one forwarder with the SAs and the first suite's traffic.
func open(t *testing.T, variant string, queues int) (*forwarder, *traffic) {
	t.Helper()
	rig.Require(t)
	all := suites()
	sad, err := newSAD(all, queues)
	if err != nil {
		t.Fatal(err)
	}
	f, err := plan{variant: variant, id: 9, mtu: 1500, queues: queues, sad: sad}.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.close() })
	traffic, err := newTraffic(all[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return f, traffic
}

// A host that takes nothing is a loss of every frame, and no figure.
func TestLoss(t *testing.T) {
	for _, variant := range []string{NullPlain, OnPlain} {
		t.Run(variant, func(t *testing.T) {
			f, traffic := open(t, variant, 1)
			if err := rig.Down(f.host); err != nil {
				t.Fatal(err)
			}
			if _, err := f.round(traffic); !errors.Is(err, errLoss) {
				t.Errorf("%v", err)
			}
		})
	}
}

// One frame of a round whose ICV is wrong spoils the round, and is found by whoever looks at frames.
func TestWrong(t *testing.T) {
	f, traffic := open(t, OnPlain, 1)
	const bad = 7
	frame := slices.Clone(traffic.frames[bad])
	frame[len(frame)-1] ^= 1
	traffic.frames[bad] = frame
	if _, err := f.round(traffic); !errors.Is(err, errLoss) || !strings.Contains(err.Error(), "verified") {
		t.Errorf("%v", err)
	}
	if out := f.pipelines[0].Process(slices.Clone(frame)); traffic.annotated(bad, out) == nil {
		t.Error("a failed frame was taken for a good one")
	}
	if out := f.pipelines[0].Process(slices.Clone(traffic.frames[1])); traffic.annotated(1, out) != nil || traffic.annotated(2, out) == nil {
		t.Error("a good frame was not told from its neighbour")
	}
	if traffic.untouched(1, traffic.frames[1]) != nil || traffic.untouched(1, traffic.frames[2]) == nil {
		t.Error("an untouched frame was not told from its neighbour")
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	if s := spreadOf(values); s != (spread{3, 2, 4}) {
		t.Errorf("%+v", s)
	}
	if quantile(nil, 0.5) != 0 || quantile(values, 1) != 5 {
		t.Error("the ends")
	}
}
