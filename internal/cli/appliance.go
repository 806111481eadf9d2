package cli

import (
	"fmt"

	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/status"
)

// appliance is the modelled NIC but for its interfaces: the SAs, and a pipeline
// for each queue.
type appliance struct {
	sad       *pipeline.SAD
	pipelines []*pipeline.Pipeline // by queue
}

func newAppliance(c *configs.Config) (*appliance, error) {
	profile := c.Profile
	profile.Capacity = c.Capacity()
	a := &appliance{sad: pipeline.NewSAD(profile, c.Queues)}
	for queue := range c.Queues {
		a.pipelines = append(a.pipelines, pipeline.New(a.sad, pipeline.Options{
			Worker: queue, Queue: uint16(queue),
			Form: formOf(c.Host.Form), NoTrailer: c.Host.Annotate == configs.None,
		}))
	}
	return a, a.offload(c)
}

// offload makes the configuration's SAs the ones in force, and sets the offload
// switches. Unchanged SAs keep their ESN marks. On an error nothing has
// changed.
func (a *appliance) offload(c *configs.Config) error {
	if err := a.sad.Replace(c.Bundles()); err != nil {
		return fmt.Errorf("offload SAs: %w", err)
	}
	a.sad.Switch(c.Offload.AH, c.Offload.ESP)
	a.sad.Activate(c.Offload.Active)
	return nil
}

// code sums the frames with that CryptoStatus over the queues.
func (a *appliance) code(c status.Code) (frames uint64) {
	for _, p := range a.pipelines {
		frames += p.Counters().Code(c)
	}
	return frames
}

// reason sums the frames that ended for that reason over the queues.
func (a *appliance) reason(r status.Reason) (frames uint64) {
	for _, p := range a.pipelines {
		frames += p.Counters().Reason(r)
	}
	return frames
}

// failed sums the frames whose IPsec was checked and found bad.
func (a *appliance) failed() (frames uint64) {
	for c := status.Success + 1; c < status.NumCodes; c++ {
		frames += a.code(c)
	}
	return frames
}

// nicReport is the NIC's account as a document: frames by status and reason.
type nicReport struct {
	Status  map[string]uint64 `json:"status"`
	Reasons map[string]uint64 `json:"reasons"`
	SAs     int               `json:"sas"`
}

func (a *appliance) report() nicReport {
	r := nicReport{map[string]uint64{}, map[string]uint64{}, len(a.sad.List())}
	for code := range status.Code(status.NumCodes) {
		if n := a.code(code); n > 0 {
			r.Status[code.String()] = n
		}
	}
	for _, reason := range status.Reasons() {
		if n := a.reason(reason); n > 0 {
			r.Reasons[reason.String()] = n
		}
	}
	return r
}
