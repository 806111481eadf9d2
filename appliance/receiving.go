//go:build linux

package appliance

import (
	"time"

	"tapsec/pipeline"
	"tapsec/transport"
)

// receiving is a NIC and the transport behind it in one process. Between them passes
// each frame's annotation as a value, so that no frame has a trailer.
type receiving struct {
	nic       *pipeline.Pipeline
	check     transport.Check // that of nic
	transport *transport.Receiver
}

func newReceiving(nic *pipeline.Pipeline, transport *transport.Receiver) *receiving {
	return &receiving{nic, nic.Check, transport}
}

// Batch returns what the stack gets of the frames of one batch.
func (r *receiving) Batch(frames [][]byte) [][]byte {
	r.nic.At(time.Now())
	clean := r.transport.BatchFrom(r.check, frames)
	r.nic.Publish()
	return clean
}
