package appliance

import (
	"time"

	"tapsec/configs"
	"tapsec/pipeline"
)

// Offline is the appliance without interfaces: one pipeline, which judges each frame of a
// capture by the SAs of its time. Time only goes forward. It is unsafe for concurrent
// use.
type Offline struct {
	config  *configs.Config
	era     configs.Era
	adapter *Adapter
	pipe    *pipeline.Pipeline
}

// NewOffline makes the appliance of a configuration, with the oldest SAs in force. Frames
// get trailers, whatever the configuration says. The error is a mistake in the
// configuration.
func NewOffline(c *configs.Config) (*Offline, error) {
	one := *c
	one.Queues, one.Host.Annotate = 1, configs.Trailer
	first := one.Era(time.Unix(-1<<40, 0))
	a, err := NewAdapter(first.Config)
	if err != nil {
		return nil, err
	}
	return &Offline{config: &one, era: first, adapter: a, pipe: a.Pipeline(0)}, nil
}

// SAs returns the offloaded SAs.
func (o *Offline) SAs() []pipeline.Holding { return o.adapter.SAs() }

// Enter puts the SAs of a time in force, and reports whether that changed anything. A
// time earlier than that of the SAs in force changes nothing.
func (o *Offline) Enter(t time.Time) (changed bool, err error) {
	if !o.era.Over(t) {
		return false, nil
	}
	next := o.config.Era(t)
	if err := o.adapter.Offload(next.Config); err != nil {
		return false, err
	}
	o.era = next
	return true, nil
}

// Process is Process of the pipeline, for a frame received at that time.
func (o *Offline) Process(frame []byte, received time.Time) []byte {
	o.pipe.At(received)
	return o.pipe.Process(frame)
}

// Tell is Process with a report after each stage (pipeline.Tell).
func (o *Offline) Tell(frame []byte, received time.Time, tell func(pipeline.Step)) []byte {
	o.pipe.At(received)
	return o.pipe.Tell(frame, tell)
}
