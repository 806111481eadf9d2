package nic

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/tap"
)

// BenchmarkFlow has another process send frames of 60 to 1514 bytes through the NIC as fast as they
// come out again, by either engine in random order. It reports what of the processor this process
// took for a frame: the median of all rounds, and the quartiles around it.
//
//	go test ./internal/nic -run '^$' -bench Flow -benchtime 20x
func BenchmarkFlow(b *testing.B) {
	took := map[tap.Engine][]float64{tap.Plain: nil, tap.Ring: nil}
	for b.Loop() {
		for _, i := range rand.Perm(2) {
			engine = []tap.Engine{tap.Plain, tap.Ring}[i]
			took[engine] = append(took[engine], flow(b))
		}
	}
	for e, t := range took {
		slices.Sort(t)
		b.ReportMetric(t[len(t)/2], e.String()+"-ns")
		b.ReportMetric(t[len(t)/4], e.String()+"-q1")
		b.ReportMetric(t[3*len(t)/4], e.String()+"-q3")
	}
}

func flow(b *testing.B) float64 {
	r := run(b, 1, nil)
	before := processTime()
	a := start(b, order{From: "wire", To: "host", Count: frames, Window: 800, Flows: 1})(0)
	used := processTime() - before
	r.stop(b)
	if a.Received != frames {
		b.Fatalf("peer saw %+v", a)
	}
	r.wire.Close()
	r.host.Close()
	return float64(used) / frames
}

func processTime() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now)
	return time.Duration(now.Nano())
}
