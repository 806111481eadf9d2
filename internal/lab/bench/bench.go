// Package bench measures the appliance on TAPs, beside forwarders that do nothing, on this machine.
//
// It runs in a rig, where the interfaces are its own. A measurement is a drain: frames wait in the wire TAP's
// queue, one core moves them to the host TAP, and the process's CPU clock is read well inside the stream, so
// that it includes neither the sender nor sleep. Variants alternate in random order within one run, and the
// figures are medians with quartiles.
//
// Every frame is accounted for. The interfaces' counters show that all came out, the pipeline's that all were
// verified, and before and after the measurement each frame is received and checked. A round in which anything
// is missing is reported and not counted.
package bench

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/tap"
)

// Options say how much is measured.
type Options struct {
	Quick  bool     // shorter, and so with wider quartiles
	Rounds int      // at most that many of each kind; 0 means as many as fit into the time
	Only   []string // of Parts; none means all
}

// Parts are what can be measured, in this order.
var Parts = []string{"cpu", "attached", "queues", "latency", "idle", "replay", "table", "system"}

// effort is how long everything is measured.
type effort struct {
	rounds     int           // at most, where it is not 0
	cpu        time.Duration // of all suites and variants, for each size
	attached   time.Duration // each size
	queues     time.Duration
	slow, fast time.Duration // latency, by pace
	idle       time.Duration // each variant
	replay     time.Duration // all of it
	system     time.Duration // all of it
	sas        int           // of the table
}

// sizes are octets that the innermost IPsec header protects.
var sizes = []int{64, 512, Standard, 9000}

func (o Options) effort() effort {
	e := effort{o.Rounds, 9 * time.Second, 4 * time.Second, 4 * time.Second, 16 * time.Second, 6 * time.Second, 2 * time.Second, 8 * time.Second, 32 * time.Second, 100_000}
	switch {
	case o.Quick:
		e = effort{o.Rounds, 3 * time.Second, time.Second, time.Second, 3 * time.Second, time.Second, 500 * time.Millisecond, time.Second, 3 * time.Second, 20_000}
	case slices.Contains(o.Only, "table"):
		e.sas = 1_000_000
	}
	return e
}

// turns are the numbers of n things to measure, all of them once in each round and in random order, for as many
// rounds as there is time for, but at least one.
func (e effort) turns(n int, budget time.Duration) iter.Seq[int] {
	return func(yield func(int) bool) {
		begin := time.Now()
		for done := 0; done == 0 || (e.rounds == 0 || done < e.rounds) && time.Since(begin) < budget; done++ {
			for _, i := range rand.Perm(n) {
				if !yield(i) {
					return
				}
			}
		}
	}
}

// Lasts is roughly how long Run takes at most, including opening and checking frames.
func (o Options) Lasts() time.Duration {
	e, most := o.effort(), time.Duration(0)
	for part, takes := range map[string]time.Duration{
		"cpu":      time.Duration(len(sizes)) * (e.cpu + 500*time.Millisecond),
		"attached": time.Duration(len(attachedSizes)) * (e.attached + time.Second),
		"queues":   e.queues + time.Second,
		"latency":  e.slow + e.fast + 2*time.Second,
		"idle":     8 * e.idle,
		"replay":   e.replay + 3*time.Second,
		"system":   e.system + 12*time.Second,
		"table":    time.Duration(e.sas) * 50 * time.Microsecond,
	} {
		if o.wants(part) {
			most += takes
		}
	}
	return most
}

func (o Options) wants(part string) bool { return len(o.Only) == 0 || slices.Contains(o.Only, part) }

// Run measures in the rig that this process is in. The error says what the machine lacks; lost frames are in
// the Report.
func Run(o Options) (*Report, error) {
	if err := rig.Setup(); err != nil {
		return nil, err
	}
	cores, err := cores()
	if err != nil {
		return nil, err
	}
	r := newReport(cores)
	r.Quick, r.Machine = o.Quick, machine(len(cores))
	if !r.ring {
		r.note("what runs on the ring is left out: %s", r.Machine.EngineWhy)
	}
	if err := confine(cores[0]); err != nil {
		return nil, err
	}
	for i, measure := range []func(effort) error{r.measureCPU, r.measureAttached, r.measureQueues, r.measureLatency, r.measureIdle, r.measureReplay, r.measureTable, r.measureSystem} {
		if !o.wants(Parts[i]) {
			continue
		}
		if err := measure(o.effort()); err != nil {
			return nil, fmt.Errorf("%s: %w", Parts[i], err)
		}
	}
	return r, nil
}

func newReport(cores []int) *Report {
	engine, _ := tap.Probe()
	return &Report{cores: cores, ring: engine == tap.Ring, Ratios: map[string]float64{},
		Rows: []Row{}, Compare: []Comparison{}, Attached: Attached{[]Row{}, map[string]float64{}}, Queues: []Queues{}, Latency: []Latency{}, Idle: []Idle{},
		System: System{noResult(), []SystemRow{}}, Replay: Replay{noResult(), []ReplayRow{}}, Table: Table{Result: noResult(), Steps: []TableStep{}}, Peers: []Peer{},
		Notes: []string{}, Losses: []string{}, Wrong: []string{}}
}

func noResult() Result { return Result{Ratios: map[string]float64{}} }
