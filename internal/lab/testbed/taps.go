package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/nic"
	"tapsec/pipeline"
)

const (
	answerWithin = 5 * time.Second
	unanswered   = 256 // frames of mixed traffic in flight, fewer than a TAP queues
)

// TAPs is the appliance on a pair of TAPs, with packet sockets on their kernel
// sides: all frames pass through the kernel.
type TAPs struct {
	link
	appliance *appliance.Appliance
	current   current
	remove    func() error // takes the TAPs away
	stop      context.CancelFunc
	ended     chan error
}

// current is the pipeline of the setup that is judged, as a stage.
type current struct {
	atomic.Pointer[pipeline.Pipeline]
}

func (c *current) Batch(frames [][]byte) [][]byte {
	if p := c.Load(); p != nil {
		return p.Batch(frames)
	}
	return frames
}

// OpenTAPs opens the TAPs in the rig that this process is in, and starts an
// appliance between them whose NIC is each setup's own.
func OpenTAPs() (_ *TAPs, err error) {
	if err := rig.Setup(); err != nil {
		return nil, err
	}
	names := configs.Default()
	b := &TAPs{ended: make(chan error, 1)}
	if b.remove, err = rig.QuietTAPs(false, names.Wire.Name, names.Host.Name); err != nil {
		return nil, err
	}
	b.appliance, err = appliance.New(appliance.Options{
		Load:  func() (*configs.Config, error) { return configs.Default(), nil },
		NoNIC: true,
		Ahead: func(int) []nic.Stage { return []nic.Stage{&b.current} },
	})
	if err != nil {
		return nil, errors.Join(err, b.remove())
	}
	if b.link, err = openLink(names.Wire.Name, names.Host.Name, answerWithin); err != nil {
		return nil, errors.Join(err, b.appliance.Close(), b.remove())
	}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	go func() { b.ended <- b.appliance.Run(ctx) }()
	<-b.appliance.Ready()
	return b, nil
}

// Ready puts the setup's pipeline into the running NIC.
func (b *TAPs) Ready(l *conformance.Setup) error {
	pipe, err := newPipeline(l)
	if err == nil {
		b.current.Store(pipe)
	}
	return err
}

// answer waits for the frame with the addresses of the one sent; the kernel's own frames
// pass through the NIC, too.
func (b *TAPs) answer(sent []byte) ([]byte, error) {
	const addresses = 12
	for {
		got, err := b.recv.Receive(answerWithin)
		if err != nil {
			return nil, fmt.Errorf("nothing came out of the host: %w", err)
		}
		if len(got) >= addresses && bytes.Equal(got[:addresses], sent[:addresses]) {
			return got, nil
		}
	}
}

// Load keeps some of the setup's cases in flight for a time, and waits for the rest.
func (b *TAPs) Load(l *conformance.Setup, d time.Duration) (r Load, err error) {
	begin := time.Now()
	for time.Since(begin) < d {
		for range unanswered {
			if err := b.send.Send(l.Cases[r.Sent%uint64(len(l.Cases))].Frame); err != nil {
				return r, err
			}
			r.Sent++
		}
		for r.Received < r.Sent {
			got, err := b.answer(l.Cases[r.Received%uint64(len(l.Cases))].Frame)
			if err != nil {
				return r, nil // what is missing shows in the counts
			}
			r.take(got, l)
		}
	}
	r.Took = time.Since(begin)
	return r, nil
}

// Close stops the appliance. The TAPs vanish.
func (b *TAPs) Close() error {
	b.stop()
	return errors.Join(<-b.ended, b.close(), b.appliance.Close(), b.remove())
}
