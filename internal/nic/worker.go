package nic

import "tapsec/tap"

// worker drives one lane: a direction of a queue, or both.
type worker struct {
	nic   *NIC
	lane  *tap.Lane
	queue int
}

// run moves batches until the lane ends, each through the chain that is in force when it comes. An
// error of Send comes again from Next, which lets go of the lane.
func (w *worker) run() error {
	for {
		link, frames, err := w.lane.Next()
		if err != nil {
			return err
		}
		chains := &w.nic.toWire
		if link.From() == w.nic.wire {
			chains = &w.nic.toHost
		}
		for _, stage := range (*chains.Load())[w.queue] {
			frames = stage.Batch(frames)
		}
		if err := link.Send(frames); err != nil {
			return err
		}
	}
}
