package nic

import (
	"cmp"
	"runtime"
	"time"

	"tapsec/tap"
)

// turn is how long a worker holds one of the runtime's processors before it passes through
// the scheduler. Of one that has not for 10 ms, the runtime's monitor takes away the
// processor whenever it sleeps in the kernel, and wakes every 20 us to see.
const turn = 4 * time.Millisecond

// worker drives a worker of the tap package, and so one direction of a queue, or both.
type worker struct {
	*tap.Worker
	wire            *tap.Device
	toHost, toWire  []Stage
	inward, outward clock
}

// run moves batches until there are no more. After an error of Send it stops, and goes on until Next, which then
// releases everything, has no more.
func (w *worker) run() (failure error) {
	for began := time.Now(); ; {
		if now := time.Now(); now.Sub(began) > turn {
			began = now
			runtime.Gosched()
		}
		direction, frames, err := w.Next()
		if err != nil {
			failure = cmp.Or(failure, err)
			return failure
		}
		stages, clock, received := w.toWire, &w.outward, len(frames)
		if direction.From() == w.wire {
			stages, clock = w.toHost, &w.inward
		}
		clock.begin()
		for _, stage := range stages {
			frames = stage.Batch(frames)
		}
		err = direction.Send(frames)
		clock.end(received)
		if err != nil && failure == nil {
			failure = err
			w.Stop()
		}
	}
}
