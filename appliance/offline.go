package appliance

import (
	"runtime"
	"slices"
	"time"

	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/sa"
)

// Offline is the appliance without interfaces, which judges the frames of a capture by the SAs
// of their time. Time only goes forward. It is unsafe for concurrent use, but each pipeline may
// have a goroutine of its own.
type Offline struct {
	config  *configs.Config
	era     configs.Era
	adapter *Adapter
}

// NewOffline makes the appliance of a configuration, with the oldest SAs in force and a pipeline
// for each processor. Frames get trailers, whatever the configuration says, and all of one queue.
// The error is a mistake in the configuration.
func NewOffline(c *configs.Config) (*Offline, error) {
	const most = 8 // more would wait for those who read and count
	return NewOfflineOf(c, min(runtime.GOMAXPROCS(0), most))
}

// NewOfflineOf is NewOffline with that many pipelines.
func NewOfflineOf(c *configs.Config, pipelines int) (*Offline, error) {
	one := *c
	one.Queues, one.Host.Annotate = pipelines, configs.Trailer
	first := one.Era(time.Unix(-1<<40, 0))
	a, err := NewAdapter(first.Config)
	if err != nil {
		return nil, err
	}
	for n := range a.pipelines {
		a.pipelines[n] = pipeline.New(a.sad, pipeline.Options{Worker: n, Form: formOf(one.Host.Form)})
	}
	return &Offline{&one, first, a}, nil
}

// SAs returns the offloaded SAs.
func (o *Offline) SAs() []pipeline.Holding { return o.adapter.SAs() }

// Over reports whether the SAs of a time are others than those in force.
func (o *Offline) Over(t time.Time) bool { return o.era.Over(t) }

// Enter puts the SAs of a time in force, and reports whether that changed anything. A
// time before that of the SAs in force changes nothing. No pipeline is at work meanwhile.
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

// Ordered reports whether verdicts may depend on the frames before, as they do with ESN.
func (o *Offline) Ordered() bool {
	return slices.ContainsFunc(o.era.SAs, func(s *sa.SA) bool { return s.ESN })
}

// Pipelines returns its pipelines.
func (o *Offline) Pipelines() []*pipeline.Pipeline { return o.adapter.pipelines }

// Process is that of the first pipeline, for a frame that was received at a time.
func (o *Offline) Process(frame []byte, received time.Time) []byte {
	p := o.adapter.Pipeline(0)
	p.At(received)
	return p.Process(frame)
}

// Tell is Process that tells after each stage what it has found (pipeline.Tell).
func (o *Offline) Tell(frame []byte, received time.Time, tell func(pipeline.Step)) []byte {
	p := o.adapter.Pipeline(0)
	p.At(received)
	return p.Tell(frame, tell)
}
