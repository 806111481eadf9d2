package bench

import (
	"fmt"
	"time"
)

// Idle is what the processor does while no frame comes, for the whole process.
type Idle struct {
	Variant string  `json:"variant"` // Nothing: no interface is open
	CPU     float64 `json:"cpu_us_per_s"`
	Seconds float64 `json:"seconds"`
}

// Nothing is the process alone, with the runtime's own work.
const Nothing = "nothing"

// measureIdle lets each variant sleep for a while, one after the other.
func (r *Report) measureIdle(e effort) error {
	headline := suites()[:1]
	r.Idle = append(r.Idle, asleep(Nothing, e.idle))
	for id, variant := range r.sleepers() {
		f, err := plan{variant: variant, id: id, mtu: Standard + overhead, queues: 1, suites: headline}.open()
		if err != nil {
			return fmt.Errorf("idle: %w", err)
		}
		r.Idle = append(r.Idle, asleep(variant, e.idle))
		if err := f.close(); err != nil {
			return fmt.Errorf("idle: %w", err)
		}
	}
	return nil
}

// asleep reads the clocks around a sleep, some time after the previous work.
func asleep(variant string, d time.Duration) Idle {
	time.Sleep(d / 4)
	cpu, wall := processTime(), wallTime()
	time.Sleep(d)
	seconds := (wallTime() - wall).Seconds()
	return Idle{variant, float64((processTime() - cpu).Microseconds()) / seconds, seconds}
}
