package nic

import "tapsec/tap"

// worker drives a worker of the tap package, and so one direction of a queue, or both.
type worker struct {
	*tap.Worker
	nic             *NIC
	queue           int
	inward, outward clock
}

// run moves batches until there are no more, each through the chain in force when it comes. Next returns
// an error of Send again, and releases everything.
func (w *worker) run() error {
	for {
		direction, frames, err := w.Next()
		if err != nil {
			return err
		}
		chains, clock, received := &w.nic.toWire, &w.outward, len(frames)
		if direction.From() == w.nic.wire {
			chains, clock = &w.nic.toHost, &w.inward
		}
		clock.begin()
		for _, stage := range (*chains.Load())[w.queue] {
			frames = stage.Batch(frames)
		}
		err = direction.Send(frames)
		clock.end(received)
		if err != nil {
			return err
		}
	}
}
