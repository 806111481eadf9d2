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
	judged       func(transport.Verdict, transport.Reason)
	transport    *transport.Receiver
}

func newReceiving(nic *pipeline.Pipeline, tap *live.Stage, transport *transport.Receiver) *receiving {
	return &receiving{nic, tap, nic.Check, tap.Check, judgedBy(tap), transport}
}

// Batch returns what the stack gets of the frames of one batch.
func (r *receiving) Batch(frames [][]byte) [][]byte {
	r.nic.At(time.Now())
	var clean [][]byte
	if r.tap.Begin() {
		clean = r.transport.BatchFrom(r.shown, frames, r.judged)
		r.tap.End()
	} else {
		r.nic.Expect(frames)
		clean = r.transport.BatchFrom(r.check, frames, nil)
	}
	r.nic.Publish()
	return clean
}

// judgedBy shows those who read frames what the transport made of each.
func judgedBy(tap *live.Stage) func(transport.Verdict, transport.Reason) {
	return func(v transport.Verdict, r transport.Reason) {
		tap.Judged(live.Fate{Verdict: uint8(v), Reason: uint8(r)})
	}
}

// saidOf is the sentence for what became of a frame.
func saidOf(f live.Fate) string {
	why := transport.Reason(f.Reason)
	switch transport.Verdict(f.Verdict) {
	case transport.Deliver:
		return "the transport delivers it"
	case transport.Software:
		return "the transport delivers it, after work of its own"
	case transport.Held:
		return "the transport holds it: " + why.Sentence()
	case transport.Drop:
		return "the transport drops it, " + why.String() + ": " + why.Sentence()
	}
	return ""
}
