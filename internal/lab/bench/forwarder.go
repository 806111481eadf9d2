package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/status"
	"tapsec/tap"
)

// The variants.
const (
	NullPlain = "null-plain" // a goroutine, the TAP library's own file, a Read and a Write for each frame
	NullRing  = "null-ring"  // the ring with an empty chain
	OnPlain   = "plain"      // the appliance on the plain engine
	OnRing    = "ring"       // the appliance on the ring

	NullBlocking = "null-blocking"  // a thread that sleeps in read(2), and a write(2): the shortest wait there is
	OnBusyRing   = "ring busy-poll" // the appliance on a ring that looks for frames before it sleeps
)

// polling is how long OnBusyRing looks: longer than the time between two frames.
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
	enter      string // interface that frames are sent to: the wire, or a veth's other end
	leave      string // interface that they come out of
	in         *rig.Socket
	meters     []*meter           // by queue
	adapter    *appliance.Adapter // nil where nothing is checked
	steering   tap.Steering
	closers    []func() error // last first
}

// plan is what a forwarder is made of.
type plan struct {
	variant string
	id      int // distinguishes its interfaces from other forwarders'
	mtu     int
	queues  int
	cores   []int   // where each queue's worker is to stay; nil: anywhere
	suites  []suite // the SAs of a SAD of its own
}

// open makes a forwarder whose interfaces are up. On an error nothing is left.
func (p plan) open() (f *forwarder, err error) {
	f = &forwarder{variant: p.variant, wire: fmt.Sprintf("wire%d", p.id), host: fmt.Sprintf("host%d", p.id)}
	f.enter, f.leave = f.wire, f.host
	if p.attached() {
		f.enter, f.leave = rig.FarEnd(f.wire), rig.FarEnd(f.host)
	}
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
	case NullCalls:
		err = f.openCalls(p)
	default:
		err = f.openNIC(p)
	}
	if err != nil {
		return f, err
	}
	for _, name := range []string{f.wire, f.host} {
		if p.attached() {
			break // they are up
		}
		if err := errors.Join(netns.SetQueueLength(name, queueLength), netns.Up(name)); err != nil {
			return f, err
		}
	}
	if err := netns.Ready(f.wire, f.host); err != nil {
		return f, err
	}
	f.in, err = rig.OpenSocket(f.enter)
	if err == nil {
		f.closers = append(f.closers, f.in.Close)
	}
	return f, err
}

// openNIC opens the appliance, with its NIC or without.
func (f *forwarder) openNIC(p plan) error {
	if err := f.makeInterfaces(p); err != nil {
		return err
	}
	o := appliance.Options{
		Load:  func() (*configs.Config, error) { return p.config(f.wire, f.host), nil },
		NoNIC: slices.Contains([]string{NullRing, NullMapped, NullDirect, NullXDP}, p.variant), Engine: tap.Ring,
		Ahead: func(queue int) []nic.Stage { return []nic.Stage{f.meters[queue]} },
	}
	switch p.variant {
	case OnPlain, AttachedPlain:
		o.Engine = tap.Plain
	case NullDirect, AttachedDirect:
		o.Engine = tap.Direct
	case NullXDP, AttachedXDP:
		o.Engine = tap.XDP
	case OnBusyRing:
		o.BusyPoll = polling
	}
	a, err := appliance.New(o)
	if err != nil {
		return err
	}
	if !o.NoNIC {
		f.adapter = a.Summary().Adapter
	}
	f.steering = a.Steering()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(a.Run(ctx), a.Close()) }()
	f.closers = append(f.closers, func() error { stop(); return <-ended })
	<-a.Ready()
	return nil
}

// config has the SAs of all suites.
func (p plan) config(wire, host string) *configs.Config {
	c := configs.Default()
	c.Queues = p.queues
	c.Wire.Name, c.Wire.MTU, c.Wire.Attach = wire, p.mtu, p.attached()
	c.Host.Name, c.Host.MTU, c.Host.Attach = host, p.mtu, p.attached()
	for _, s := range p.suites {
		c.SAs = append(c.SAs, s.sas...)
	}
	return c
}

func (f *forwarder) close() error {
	var all error
	for i := len(f.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, f.closers[i]())
	}
	f.closers = nil
	return all
}

// moved is what a forwarder has done so far.
type moved struct {
	in, out  uint64 // frames that the kernel gave to the program, and took from it
	dropped  uint64 // by the kernel, on either side
	verified uint64 // frames that the pipelines checked and found good
}

func (f *forwarder) moved() (m moved, err error) {
	wire, err1 := netns.Counters(f.wire)
	host, err2 := netns.Counters(f.host)
	m.in, m.out, m.dropped = wire.TxPackets, host.RxPackets, wire.TxDropped+host.RxDropped
	if f.enter != f.wire {
		m.in, m.out, m.dropped = wire.RxPackets, host.TxPackets, wire.RxDropped+host.TxDropped
	}
	if f.adapter != nil {
		m.verified = f.adapter.Reason(status.Verified)
	}
	return m, errors.Join(err1, err2)
}

func (f *forwarder) verified(queue int) uint64 {
	return f.adapter.Pipeline(queue).Counters().Reason(status.Verified)
}

// settle waits until what was sent has come out, and reports whether all of it did.
func (f *forwarder) settle(before moved, sent int) error {
	for deadline := time.Now().Add(settled); ; time.Sleep(200 * time.Microsecond) {
		now, err := f.moved()
		if err != nil {
			return err
		}
		did := moved{now.in - before.in, now.out - before.out, now.dropped - before.dropped, now.verified - before.verified}
		want := moved{in: uint64(sent), out: uint64(sent)}
		if f.adapter != nil {
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
