package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/pipeline"
	"tapsec/status"
	"tapsec/tap"
)

// inRig runs this program again with args in a rig that ends with it. A noRig says
// that none is to be had, and that nothing was run.
func inRig(args ...string) error {
	for _, need := range rig.Needs() {
		if need.Name == "tun device" && !need.Met {
			return noRig{fmt.Errorf("%s %s", need.Detail, need.Remedy)}
		}
	}
	code, err := rig.Reexec(args...)
	switch {
	case errors.Is(err, rig.ErrRefused):
		return noRig{err}
	case err == nil && code != exitOK:
		return exitError{code, errSaid}
	}
	return err
}

// noRig is why there is no rig, and what to do about it.
type noRig struct{ error }

// memoryTestbed runs frames through the pipeline without any interface.
type memoryTestbed struct{ pipe *pipeline.Pipeline }

// Ready makes the pipeline anew.
func (b *memoryTestbed) Ready(l *conformance.Lab) (err error) {
	b.pipe, err = labPipeline(l)
	return err
}

// labPipeline is a pipeline whose NIC is ready for the lab's cases.
func labPipeline(l *conformance.Lab) (*pipeline.Pipeline, error) {
	sad := pipeline.NewSAD(l.Profile, 1)
	if err := l.Arrange(sad); err != nil {
		return nil, err
	}
	return pipeline.New(sad, pipeline.Options{}), nil
}

// Exchange is the pipeline itself.
func (b *memoryTestbed) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	b.pipe.At(time.Now())
	for _, f := range frames {
		delivered = append(delivered, b.pipe.Process(bytes.Clone(f)))
	}
	return delivered, nil
}

func (b *memoryTestbed) load(l *conformance.Lab, d time.Duration) (loadResult, error) {
	var r loadResult
	begin := time.Now()
	for n := uint64(0); time.Since(begin) < d; n++ {
		c := &l.Cases[n%uint64(len(l.Cases))]
		b.pipe.At(time.Now())
		r.sent++
		r.take(b.pipe.Process(bytes.Clone(c.Frame)), l)
	}
	r.took = time.Since(begin)
	return r, nil
}

// take judges the next answer to the lab's cases, which were sent in turn.
func (r *loadResult) take(answer []byte, l *conformance.Lab) {
	_, t, err := status.Split(answer)
	c := &l.Cases[r.received%uint64(len(l.Cases))]
	r.received++
	if err != nil || t.Word != c.Word || t.Ordinal != r.received {
		r.wrong++
	}
}

func (b *memoryTestbed) close() error { return nil }

// tapTestbed is the appliance on a pair of TAPs, with packet sockets on their
// kernel sides: all frames pass through the kernel.
type tapTestbed struct {
	link
	wire, host *tap.Device
	nic        *nic.NIC
	stop       context.CancelFunc
	ended      chan error
}

// link is the other ends of a NIC's two interfaces: a frame sent out of the wire
// comes to the host.
type link struct {
	send, recv *rig.Socket
	wait       time.Duration // how long the NIC may keep a frame
}

// Exchange sends frames and collects them; what the kernel sends of its own
// accord passes through a NIC too.
func (l *link) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	for _, f := range frames {
		if err := l.send.Send(f); err != nil {
			return nil, err
		}
	}
	for len(delivered) < len(frames) {
		got, err := l.recv.Receive(l.wait)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break // what is missing shows
		} else if err != nil {
			return nil, err
		}
		if conformance.Stamped(got) {
			delivered = append(delivered, bytes.Clone(got))
		}
	}
	return delivered, nil
}

const (
	demoMTU      = 1500
	demoRoom     = demoMTU + 14 + 8 // Ethernet header and two VLAN tags
	answerWithin = 5 * time.Second
	unanswered   = 256 // frames of mixed traffic in flight, fewer than a TAP queues
)

// newTAPTestbed opens the TAPs in the rig that this process is in, and starts the
// NIC between them with an empty chain.
func newTAPTestbed() (b *tapTestbed, err error) {
	b = &tapTestbed{link: link{wait: answerWithin}, ended: make(chan error, 1), stop: func() {}}
	defer func() {
		if err != nil {
			b.release()
		}
	}()
	if err = rig.Setup(); err != nil {
		return b, err
	}
	if b.wire, err = tap.Open(tap.Config{Name: "wire0", MTU: demoMTU}); err != nil {
		return b, err
	}
	if b.host, err = tap.Open(tap.Config{Name: "host0", MTU: demoMTU}); err != nil {
		return b, err
	}
	if err = errors.Join(netns.Up("wire0"), netns.Up("host0"), netns.Ready("wire0", "host0")); err != nil {
		return b, err
	}
	if b.send, err = rig.OpenSocket("wire0"); err != nil {
		return b, err
	}
	if b.recv, err = rig.OpenSocket("host0"); err != nil {
		return b, err
	}
	b.nic, err = nic.New(nic.Config{Wire: b.wire, Host: b.host, Room: demoRoom, Tail: status.Tailroom})
	if err != nil {
		return b, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() { b.ended <- b.nic.Run(ctx) }()
	return b, nil
}

// Ready puts the lab's pipeline into the running NIC.
func (b *tapTestbed) Ready(l *conformance.Lab) error {
	pipe, err := labPipeline(l)
	if err != nil {
		return err
	}
	b.nic.Swap(func(int) []nic.Stage { return []nic.Stage{pipe} })
	return nil
}

// answer waits for the frame with the addresses of the one sent. The kernel may
// send frames of its own, which pass through the NIC too.
func (b *tapTestbed) answer(sent []byte) ([]byte, error) {
	const addresses = 12
	for {
		got, err := b.recv.Receive(answerWithin)
		if err != nil {
			return nil, fmt.Errorf("nothing came out of host0: %w", err)
		}
		if len(got) >= addresses && bytes.Equal(got[:addresses], sent[:addresses]) {
			return got, nil
		}
	}
}

// load keeps some frames in flight for so long, and waits for the rest.
func (b *tapTestbed) load(l *conformance.Lab, d time.Duration) (loadResult, error) {
	var r loadResult
	begin := time.Now()
	for time.Since(begin) < d {
		for range unanswered {
			if err := b.send.Send(l.Cases[r.sent%uint64(len(l.Cases))].Frame); err != nil {
				return r, err
			}
			r.sent++
		}
		for r.received < r.sent {
			got, err := b.answer(l.Cases[r.received%uint64(len(l.Cases))].Frame)
			if err != nil {
				return r, nil // what is missing shows in the counts
			}
			r.take(got, l)
		}
	}
	r.took = time.Since(begin)
	return r, nil
}

// close stops the NIC and takes the rig down.
func (b *tapTestbed) close() error {
	b.stop()
	return errors.Join(<-b.ended, b.release())
}

func (b *tapTestbed) release() error {
	var all error
	for _, s := range []*rig.Socket{b.send, b.recv} {
		if s != nil {
			all = errors.Join(all, s.Close())
		}
	}
	for _, d := range []*tap.Device{b.wire, b.host} {
		if d != nil {
			all = errors.Join(all, d.Close())
		}
	}
	return all
}
