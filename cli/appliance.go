package cli

import (
	"fmt"

	"tapsec/configs"
	"tapsec/nic"
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

// chain gives the stages of one queue, wire to host.
func (a *appliance) chain(queue int) []nic.Stage { return []nic.Stage{a.pipelines[queue]} }

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
