// Package bench measures the appliance on TAPs, beside forwarders that do nothing, on this machine.
//
// It lives in a rig, where the interfaces are its own. A measurement is a drain: frames wait in the
// wire TAP's queue, one core moves them to the host TAP, and the process's CPU clock is read well
// inside the stream, so that neither the sender nor a sleep is in it. Variants alternate in random
// order within one run, and the figures are medians with quartiles.
//
// Every frame is accounted for. The interfaces' counters say that all came out, the pipeline's that
// all verified, and in rounds that are not measured each frame is received and looked at. A round in
// which anything is missing is reported and not counted.
package bench

import (
	"fmt"
	"time"

	"tapsec/rig"
	"tapsec/tap"
)

// Options say how much is measured.
type Options struct {
	Quick  bool // fewer rounds, and so wider quartiles
	Rounds int  // at most so many of each kind; 0 means what fits into the time
}

// effort is how much of everything there is.
type effort struct {
	rounds int           // of each cell
	budget time.Duration // for the rounds of all cells of a size
}

// sizes are octets that the innermost IPsec header protects.
var sizes = []int{64, 512, Standard, 9000}

func (o Options) effort() effort {
	e := effort{rounds: 101, budget: 9 * time.Second}
	if o.Quick {
		e = effort{rounds: 21, budget: 3 * time.Second}
	}
	if o.Rounds > 0 {
		e.rounds = o.Rounds
	}
	return e
}

// Lasts is about how long Run takes.
func (o Options) Lasts() time.Duration {
	const opening = 500 * time.Millisecond // and looking at every frame twice, for each size
	return time.Duration(len(sizes)) * (o.effort().budget + opening)
}

// Run measures everything in the rig that this process is in. The error says what the machine lacks;
// lost frames are no error but in the Report.
func Run(o Options) (*Report, error) {
	if err := rig.Setup(); err != nil {
		return nil, err
	}
	e := o.effort()
	cores, err := cores()
	if err != nil {
		return nil, err
	}
	r := &Report{Machine: machine(len(cores)), Quick: o.Quick, Notes: []string{}, Losses: []string{}, Wrong: []string{}}
	engine, _ := tap.Probe()
	r.ring = engine == tap.Ring
	if !r.ring {
		r.note("null-ring and ring are left out: %s", r.Machine.EngineWhy)
	}
	if err := confine(cores[0]); err != nil {
		return nil, err
	}
	for _, size := range sizes {
		if err := r.drain(size, e); err != nil {
			return nil, fmt.Errorf("drain, %d octets: %w", size, err)
		}
	}
	r.divide()
	return r, nil
}
