package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
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

// TestAttachedDrain measures between veths: each row has its rounds, and every frame came out as it should.
func TestAttachedDrain(t *testing.T) {
	rig.Require(t)
	const rounds = 2
	r := newReport(nil)
	if err := r.measureAttached(effort{rounds: rounds, attached: time.Minute}); err != nil {
		t.Fatal(err)
	}
	variants, lacking := attachedVariants()
	if lacking != nil {
		rig.Missing(t, lacking.Error())
	}
	if want := len(variants) * len(attachedSizes); len(r.Attached.Rows) != want || len(r.Attached.Ratios) != len(variants)-1 || len(r.Losses)+len(r.Wrong) > 0 || r.Inspected != 2*want*distinct {
		t.Errorf("%d rows, %d frames inspected; %v %v", len(r.Attached.Rows), r.Inspected, r.Losses, r.Wrong)
	}
	for _, row := range r.Attached.Rows {
		if row.Rounds != rounds || row.CPU <= 0 {
			t.Errorf("%+v", row)
		}
	}
}

// A machine without a ring gets the figures that it can have.
func TestWithoutRing(t *testing.T) {
	rig.Require(t)
	r := newReport(nil)
	r.ring = false
	if err := r.drain(Standard, effort{rounds: 1}); err != nil {
		t.Fatal(err)
	}
	r.divide()
	if len(r.Rows) != 2*len(suites()) || len(r.Ratios) != 1 || r.Ratios["c/a"] <= 0 {
		t.Errorf("%d rows, ratios %v", len(r.Rows), r.Ratios)
	}
}

// A machine with one core says what is missing for that, and fails in nothing.
func TestOneCore(t *testing.T) {
	r := newReport([]int{0})
	if err := errors.Join(r.measureQueues(effort{}), r.measureLatency(effort{})); err != nil || len(r.Notes) != 2 {
		t.Errorf("%v, %q", err, r.Notes)
	}
}

// Frames that come in another order than they were sent are no latency.
func TestLatencyLoss(t *testing.T) {
	f, traffic := open(t, OnPlain, 64)
	out, err := rig.OpenSocket(f.host)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	m := &timed{forwarder: f, out: out, gap: time.Microsecond}
	if err := errors.Join(out.KeepTime(), m.round(traffic)); err != nil || len(m.took) != spaced-unsettled || slices.Min(m.took) <= 0 {
		t.Fatalf("%v, %v", err, m.took)
	}
	traffic.frames[spaced-1] = traffic.frames[0]
	if err := m.round(traffic); !errors.Is(err, errLoss) || len(m.took) != spaced-unsettled {
		t.Errorf("%v, %d frames", err, len(m.took))
	}
}

// TestTable: each step of a table has its figures, and its frames are good.
func TestTable(t *testing.T) {
	r := newReport(nil)
	if err := r.measureTable(effort{sas: 3000}); err != nil {
		t.Fatal(err)
	}
	if r.Table.SAs != 3000 || len(r.Table.Steps) != 5 || r.Table.CPU <= 0 || r.Table.Rate <= 0 || r.Table.Ratios["reload/read"] <= 0 {
		t.Fatalf("%+v", r.Table)
	}
	for i, s := range r.Table.Steps {
		if s.CPU <= 0 || i < 2 && s.Bytes <= 0 {
			t.Errorf("%+v", s)
		}
	}
}

// hasty is for tests in which frames do not come.
func hasty(t *testing.T) {
	patient := settled
	settled = time.Second
	t.Cleanup(func() { settled = patient })
}

// open makes one forwarder with the SAs and the first suite's traffic.
func open(t testing.TB, variant string, size int) (*forwarder, *traffic) {
	t.Helper()
	rig.Require(t)
	all := suites()
	f, err := plan{variant: variant, id: 9, mtu: Standard + overhead, queues: 1, suites: all}.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.close() })
	traffic, err := newTraffic(all[0], size)
	if err != nil {
		t.Fatal(err)
	}
	return f, traffic
}

// A host that takes nothing is a loss of every frame, and no figure.
func TestLoss(t *testing.T) {
	for _, variant := range []string{NullPlain, OnPlain} {
		t.Run(variant, func(t *testing.T) {
			f, traffic := open(t, variant, 64)
			hasty(t)
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
	f, traffic := open(t, OnPlain, 64)
	hasty(t)
	const bad = 7
	frame := slices.Clone(traffic.frames[bad])
	frame[len(frame)-1] ^= 1
	traffic.frames[bad] = frame
	if _, err := f.round(traffic); !errors.Is(err, errLoss) || !strings.Contains(err.Error(), "verified") {
		t.Errorf("%v", err)
	}
	f.close() // the pipeline is its worker's until then
	if out := f.adapter.Pipeline(0).Process(slices.Clone(frame)); traffic.annotated(bad, out) == nil {
		t.Error("a failed frame was taken for a good one")
	}
	if out := f.adapter.Pipeline(0).Process(slices.Clone(traffic.frames[1])); traffic.annotated(1, out) != nil || traffic.annotated(2, out) == nil {
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

// BenchmarkRound is for a profiler: rounds of the headline on one variant, its worker's thread doing
// nothing else.
//
//	go test -c ./internal/lab/bench && perf record -F 9000 -e cpu-clock ./bench.test -test.run '^$' -test.bench 'Round/ring' -test.benchtime 1000x
func BenchmarkRound(b *testing.B) {
	for _, variant := range []string{NullPlain, NullRing, OnPlain, OnRing, NullMapped, AttachedRing, NullDirect, AttachedDirect, NullXDP, AttachedXDP} {
		b.Run(variant, func(b *testing.B) {
			f, t := open(b, variant, Standard)
			var took []float64
			for b.Loop() {
				got, err := f.round(t)
				if err != nil {
					b.Fatal(err)
				}
				took = append(took, got.perFrame())
			}
			b.ReportMetric(quantile(took, 0.5), "cpu-ns/frame")
		})
	}
}
