package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/pipeline"
	"tapsec/status"
	"tapsec/tap"
)

// The variants.
const (
	NullPlain = "null-plain" // a goroutine, the TAP library's own file, a Read and a Write for each frame
	NullRing  = "null-ring"  // the ring with an empty chain
	OnPlain   = "plain"      // the appliance on the plain engine
	OnRing    = "ring"       // the appliance on the ring

	NullBlocking = "null-blocking"  // a thread that sleeps in read(2), and a write(2): no frame waits for less
	OnBusyRing   = "ring busy-poll" // the appliance on a ring that looks for frames before it sleeps
)

// polling is how long OnBusyRing looks: longer than two frames are apart.
const polling = 2 * time.Millisecond

const (
	queueLength = 1 << 13 // frames that a wire TAP holds
	linkHeader  = 14
)

// settled is how long the last frame may take to come out. Tests that lose frames wait less.
var settled = 10 * time.Second

// forwarder moves frames from a wire TAP of its own to a host TAP of its own.
type forwarder struct {
	variant    string
	wire, host string
	in         *rig.Socket
	meters     []*meter // by queue
	pipelines  []*pipeline.Pipeline
	steering   tap.Steering
	closers    []func() error // last first
}

// plan is what a forwarder is made of.
type plan struct {
	variant string
	id      int // tells its interfaces from other forwarders'
	mtu     int
	queues  int
	cores   []int   // where each queue's worker is to stay; nil leaves it be
	suites  []suite // the SAs of a SAD of its own
}

// open makes a forwarder whose interfaces are up. On an error nothing is left.
func (p plan) open() (f *forwarder, err error) {
	f = &forwarder{variant: p.variant, wire: fmt.Sprintf("wire%d", p.id), host: fmt.Sprintf("host%d", p.id)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", p.variant, err), f.close())
		}
	}()
	for queue := range p.queues {
		f.meters = append(f.meters, newMeter())
		if p.cores != nil {
			f.meters[queue].core = p.cores[queue]
		}
	}
	switch p.variant {
	case NullPlain:
		err = f.openNull(p)
	case NullBlocking:
		err = f.openBlocking(p)
	default:
		err = f.openNIC(p)
	}
	if err != nil {
		return f, err
	}
	for _, name := range []string{f.wire, f.host} {
		if err := errors.Join(netns.SetQueueLength(name, queueLength), netns.Up(name)); err != nil {
			return f, err
		}
	}
	if err := netns.Ready(f.wire, f.host); err != nil {
		return f, err
	}
	f.in, err = rig.OpenSocket(f.wire)
	if err == nil {
		f.closers = append(f.closers, f.in.Close)
	}
	return f, err
}

// openNIC is the running NIC, with the pipeline in its chain or without.
func (f *forwarder) openNIC(p plan) error {
	wire, err := f.openDevice(f.wire, p)
	if err != nil {
		return err
	}
	host, err := f.openDevice(f.host, p)
	if err != nil {
		return err
	}
	if err := f.steer(wire); err != nil {
		return err
	}
	engine := tap.Plain
	if p.variant != OnPlain {
		engine = tap.Ring
	}
	if p.variant != NullRing {
		sad, err := newSAD(p.suites, p.queues)
		if err != nil {
			return err
		}
		for queue := range p.queues {
			f.pipelines = append(f.pipelines, pipeline.New(sad, pipeline.Options{Worker: queue, Queue: uint16(queue)}))
		}
	}
	var busy time.Duration
	if p.variant == OnBusyRing {
		busy = polling
	}
	n, err := nic.New(nic.Config{Wire: wire, Host: host, Room: p.mtu + linkHeader, Tail: status.Tailroom,
		Chain: f.chain, Engine: engine, BusyPoll: busy})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	f.closers = append(f.closers, func() error { stop(); return <-ended })
	return nil
}

func (f *forwarder) openDevice(name string, p plan) (*tap.Device, error) {
	d, err := tap.Open(tap.Config{Name: name, Queues: p.queues, MTU: p.mtu})
	if err == nil {
		f.closers = append(f.closers, d.Close)
	}
	return d, err
}

func (f *forwarder) chain(queue int) []nic.Stage {
	stages := []nic.Stage{f.meters[queue]}
	if f.pipelines != nil {
		stages = append(stages, f.pipelines[queue])
	}
	return stages
}

func (f *forwarder) close() error {
	var all error
	for i := len(f.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, f.closers[i]())
	}
	f.closers = nil
	return all
}

// moved is the account of a forwarder so far.
type moved struct {
	in, out  uint64 // frames that the kernel gave to the program, and took from it
	dropped  uint64 // by the kernel, on either side
	verified uint64 // frames that the pipelines checked and found good
}

func (f *forwarder) moved() (m moved, err error) {
	wire, err1 := netns.Counters(f.wire)
	host, err2 := netns.Counters(f.host)
	m.in, m.out, m.dropped = wire.TxPackets, host.RxPackets, wire.TxDropped+host.RxDropped
	for queue := range f.pipelines {
		m.verified += f.verified(queue)
	}
	return m, errors.Join(err1, err2)
}

func (f *forwarder) verified(queue int) uint64 {
	return f.pipelines[queue].Counters().Reason(status.Verified)
}

// settle waits until what was sent has come out, and tells whether all of it did.
func (f *forwarder) settle(before moved, sent int) error {
	for deadline := time.Now().Add(settled); ; time.Sleep(200 * time.Microsecond) {
		now, err := f.moved()
		if err != nil {
			return err
		}
		did := moved{now.in - before.in, now.out - before.out, now.dropped - before.dropped, now.verified - before.verified}
		want := moved{in: uint64(sent), out: uint64(sent)}
		if f.pipelines != nil {
			want.verified = uint64(sent)
		}
		if did == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: of %d frames sent %d were read, %d written, %d verified, %d dropped", errLoss, sent, did.in, did.out, did.verified, did.dropped)
		}
	}
}
