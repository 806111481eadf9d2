//go:build linux

package appliance

import (
	"time"

	"tapsec/internal/live"
	"tapsec/pipeline"
	"tapsec/transport"
)

// receiving is a NIC and the transport behind it in one process. Between them passes
// each frame's annotation as a value, so that no frame has a trailer.
type receiving struct {
	nic          *pipeline.Pipeline
	tap          *live.Stage
	check, shown transport.Check // that of nic, as it is and by way of tap
	transport    *transport.Receiver
}

func newReceiving(nic *pipeline.Pipeline, tap *live.Stage, transport *transport.Receiver) *receiving {
	return &receiving{nic, tap, nic.Check, tap.Check, transport}
}

// Batch returns what the stack gets of the frames of one batch.
func (r *receiving) Batch(frames [][]byte) [][]byte {
	r.nic.At(time.Now())
	check := r.check
	if r.tap.Begin() {
		check = r.shown
		defer r.tap.End()
	}
	clean := r.transport.BatchFrom(check, frames)
	r.nic.Publish()
	return clean
}
