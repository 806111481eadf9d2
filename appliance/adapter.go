package appliance

import (
	"fmt"

	"tapsec/configs"
	"tapsec/internal/ledger"
	"tapsec/pipeline"
	"tapsec/status"
)

// Adapter is the modelled NIC without its interfaces: the SAs, and a pipeline for each
// queue.
type Adapter struct {
	sad       *pipeline.SAD
	pipelines []*pipeline.Pipeline // by queue
}

// NewAdapter makes the NIC of a configuration. The error is a mistake in the
// configuration.
func NewAdapter(c *configs.Config) (*Adapter, error) { return newAdapter(c, ledger.New().Marks(), nil) }

// newAdapter makes an Adapter whose SAs get their ESN marks from marks. failed, if not
// nil, is called with each frame that it finds bad.
func newAdapter(c *configs.Config, marks pipeline.Marks, failed func([]byte, *status.Trailer)) (*Adapter, error) {
	profile := c.Profile
	profile.Capacity = c.Capacity()
	a := &Adapter{sad: pipeline.NewSAD(profile, c.Queues+1)} // one more for whoever asks beside the frames
	a.sad.Remember(marks)
	for queue := range c.Queues {
		a.pipelines = append(a.pipelines, pipeline.New(a.sad, pipeline.Options{
			Worker: queue, Queue: uint16(queue),
			Form: formOf(c.Host.Form), NoTrailer: c.Host.Annotate == configs.None, Failed: failed,
		}))
	}
	return a, a.Offload(c)
}

// Offload puts the configuration's SAs in force and sets the offload switches. An SA whose
// keys were in force before keeps its ESN mark. On an error nothing has changed.
func (a *Adapter) Offload(c *configs.Config) error {
	if err := a.sad.Replace(c.Bundles()); err != nil {
		return fmt.Errorf("offload SAs: %w", err)
	}
	a.sad.Switch(c.Offload.AH, c.Offload.ESP)
	a.sad.Activate(c.Offload.Active)
	return nil
}

// SAs returns the offloaded SAs.
func (a *Adapter) SAs() []pipeline.Holding { return a.sad.List() }

// Pipeline returns a queue's pipeline, which belongs to whoever moves that queue's frames.
func (a *Adapter) Pipeline(queue int) *pipeline.Pipeline { return a.pipelines[queue] }

// Code counts the frames with that CryptoStatus, over all queues.
func (a *Adapter) Code(c status.Code) (frames uint64) {
	for _, p := range a.pipelines {
		frames += p.Counters().Code(c)
	}
	return frames
}

// Reason counts the frames that ended with that reason, over all queues.
func (a *Adapter) Reason(r status.Reason) (frames uint64) {
	for _, p := range a.pipelines {
		frames += p.Counters().Reason(r)
	}
	return frames
}

// Failed counts the frames whose IPsec was checked and found bad.
func (a *Adapter) Failed() (frames uint64) {
	for c := status.Success + 1; c < status.NumCodes; c++ {
		frames += a.Code(c)
	}
	return frames
}

// nicReport is the NIC's account as a document: frames by status and reason.
type nicReport struct {
	Status  map[string]uint64 `json:"status"`
	Reasons map[string]uint64 `json:"reasons"`
	SAs     int               `json:"sas"`
}

func (a *Adapter) report() nicReport {
	r := nicReport{map[string]uint64{}, map[string]uint64{}, a.sad.Count()}
	for code := range status.Code(status.NumCodes) {
		if n := a.Code(code); n > 0 {
			r.Status[code.String()] = n
		}
	}
	for _, reason := range status.Reasons() {
		if n := a.Reason(reason); n > 0 {
			r.Reasons[reason.String()] = n
		}
	}
	return r
}

func formOf(f configs.Form) status.Form {
	if f == configs.Decap {
		return status.Decap
	}
	return status.InPlace
}
