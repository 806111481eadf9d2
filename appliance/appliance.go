//go:build linux

// Package appliance is the running program as an object: a software NIC with
// IPsec receive offload between two interfaces, the TCP/IP transport behind it,
// or both.
//
//	wire -> adapter (the NIC) -> host's transport -> stack, on the host's TAP
//	wire <- sealed where an SA says so <- stack
//
// New opens everything, Run moves frames until its context ends, Reload puts another
// configuration in force meanwhile, Summary tells what was done. Everything logged goes to
// Options.Log; the package prints nothing.
package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/confine"
	server "tapsec/internal/control"
	"tapsec/internal/event"
	"tapsec/internal/ledger"
	"tapsec/internal/live"
	"tapsec/internal/metrics"
	"tapsec/internal/mirror"
	"tapsec/internal/nic"
	"tapsec/status"
	"tapsec/tap"
)

// Options say what an Appliance is made of. Only Load has to be there.
type Options struct {
	// Load reads the configuration; each Reload does so again.
	Load func() (*configs.Config, error)

	NoNIC     bool   // the NIC is in another process, and frames arrive annotated
	Transport bool   // be the transport as well; the configuration's host is then its stack's TAP
	NIC       string // control socket of the NIC in another process
	State     string // file in which windows and numbers live as long as their keys
	Control   string // path of our control socket
	Mirror    bool   // follow the SAs of a kernel, which is then the transport: needs a NIC, and no transport here
	MirrorIn  string // the kernel's network namespace; empty: this one
	Metrics   string // TCP address on which Prometheus may ask; empty: none

	Engine   tap.Engine
	Steering tap.Steering
	BusyPoll time.Duration // how long to look for frames before sleeping
	Unmerged tap.Merging   // what must not pass merged between transport and stack, or on the wire
	Use      [][]string    // stacks of SAs to seal with, each innermost first; nil: those that fit each packet
	First    uint64        // sequence number of the first packet sealed; 0 is 1

	Confine bool // take from the whole process what it no longer needs, once all is open and before frames move

	Ahead Chain        // stages before all others on the way from the wire, such as a meter
	Log   *slog.Logger // nil: nothing is logged
}

// Types of this module that programs outside of it name here.
type (
	// Stage is one step of a frame's way. Batch returns the frames that go on, in order: those
	// that it was given, which it may change in place and lengthen into their spare capacity,
	// or fewer of them, or frames of its own. It keeps none that it was given, and belongs to
	// one worker.
	Stage = nic.Stage
	// Chain makes the stages of one queue, first stage first.
	Chain = nic.Chain
	// Moved is what was moved so far, in either direction.
	Moved = nic.Summary
)

// stackMerging is what passes merged on the host's TAP: only a stack behind a transport takes that.
func (o *Options) stackMerging() tap.Merging {
	if !o.Transport {
		return 0
	}
	return tap.AllMerging &^ tap.Wire &^ o.Unmerged
}

// wireMerging is what passes merged on a transport's wire.
func (o *Options) wireMerging() tap.Merging {
	if !o.Transport {
		return 0
	}
	return tap.Wire &^ o.Unmerged
}

// InputError is a mistake in what the user gave, who can mend it.
type InputError struct{ error }

// Unwrap returns the mistake itself.
func (e InputError) Unwrap() error { return e.error }

func inputError(err error) error {
	if err == nil {
		return nil
	}
	return InputError{err}
}

// Appliance is the program at work. Its methods may be called by several
// goroutines.
type Appliance struct {
	options  Options
	log      *slog.Logger
	ledger   *ledger.Ledger
	adapter  *Adapter  // nil: the NIC is elsewhere
	failures *failures // nil: the bad frames that the adapter finds are not logged
	host     *host     // nil: the transport is elsewhere
	ports    *ports
	nic      *nic.NIC
	tap      *live.Tap       // nil without an adapter
	server   *server.Server  // nil without a control socket
	unheard  bool            // somebody has removed its file
	mirror   *mirror.Mirror  // nil without
	metrics  *metrics.Server // nil without
	opened   chan struct{}   // closed when all is open, and the process confined
	losses   losses
	events   events
	ready    chan struct{}
	flows    atomic.Bool // frames do, since the log has said so
	began    time.Time

	loading sync.Mutex // held by what reads the configuration, and taken before mu

	mu     sync.Mutex      // held by what changes the configuration
	closed bool            // nothing changes it any more
	config *configs.Config // its SAs are those of the latest reload
	roster *roster         // the SAs in force
}

// New opens everything, ready to move frames. On an error nothing stays open; an error
// that the user can mend is an InputError.
func New(o Options) (_ *Appliance, err error) {
	a := &Appliance{options: o, log: o.Log, opened: make(chan struct{}), ready: make(chan struct{}), began: time.Now()}
	a.log = cmp.Or(a.log, slog.New(slog.DiscardHandler))
	a.events.watch.Tell = a.tell
	if o.Confine {
		if err := confine.NoCores(); err != nil {
			a.log.Warn("core dumps may hold keys", "err", err)
		}
	}
	if a.config, err = o.Load(); err != nil {
		return nil, inputError(err)
	}
	if err = a.open(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// open opens each part before the ones that need it.
func (a *Appliance) open() (err error) {
	o := &a.options
	if a.ledger, err = a.openLedger(); err != nil {
		return inputError(err)
	}
	if !o.NoNIC {
		var failed func([]byte, *status.Trailer)
		if !o.Transport { // whose drops say more
			a.failures = &failures{log: a.log}
			failed = a.failures.frame
		}
		if a.adapter, err = newAdapter(a.config, a.ledger.Marks(), failed); err != nil {
			return inputError(err)
		}
		a.tap = live.New(a.config.Queues)
		if a.failures != nil {
			a.failures.adapter = a.adapter
		}
	}
	a.warn(a.config)
	a.losses = losses{log: a.log, wire: a.config.Wire.Name, host: a.config.Host.Name, xdp: o.Engine == tap.XDP}
	if a.ports, err = openPorts(a.config, o); err != nil {
		return err
	}
	if o.Transport {
		if a.host, err = newHost(a); err != nil {
			return err
		}
	}
	if a.nic, err = a.ports.join(o, a.inward, a.outward, a.confine); err != nil {
		return err
	}
	if o.Engine == tap.XDP {
		a.warnOfSums()
	}
	a.enlist(a.config)
	if err = a.openMirror(); err != nil {
		return err
	}
	if o.Metrics != "" {
		a.metrics, err = metrics.Open(o.Metrics, func() []control.Counter {
			all, _ := a.Counters("") // of all, which no name can fail
			return all
		}, a.log)
		if err != nil {
			return inputError(err)
		}
		a.log.Info("metrics", "at", "http://"+a.metrics.Address()+"/metrics")
	}
	return a.answer()
}

// openLedger opens the state file, which only a transport needs.
func (a *Appliance) openLedger() (*ledger.Ledger, error) {
	if a.options.State == "" || !a.options.Transport {
		return ledger.New(), nil
	}
	return ledger.Open(a.options.State, func(err error) {
		if err != nil {
			a.log.Error("the state file cannot be written: packets that need a sequence number beyond those it holds are dropped", "err", err)
		} else {
			a.log.Info("the state file can be written again")
		}
	})
}

// Close releases everything, after Run has returned. Interfaces that New made disappear.
func (a *Appliance) Close() error {
	a.mu.Lock() // what is being read may come yet
	a.closed = true
	a.mu.Unlock()
	a.flush()
	var err error
	if a.ledger != nil {
		err = a.ledger.Close()
	}
	if a.server != nil {
		err = errors.Join(err, a.server.Close())
	}
	if a.metrics != nil {
		err = errors.Join(err, a.metrics.Close())
	}
	if a.mirror != nil {
		err = errors.Join(err, a.mirror.Close())
	}
	if a.host != nil {
		err = errors.Join(err, a.host.close())
	}
	if a.ports != nil {
		err = errors.Join(err, a.ports.close())
	}
	return err
}

// flush logs what was counted but not logged yet.
func (a *Appliance) flush() {
	if a.nic != nil {
		a.losses.watch(a.nic.Summary(), a.ports.drops())
	}
	if a.failures != nil {
		a.failures.silent(true)
	}
	a.settle()
	if a.host != nil {
		a.host.consumer.Flush()
		a.host.sender.Flush()
	}
}

// inward is the path of a frame from the wire: through the NIC, then the transport.
func (a *Appliance) inward(queue int) (stages []nic.Stage) {
	if a.options.Ahead != nil {
		stages = a.options.Ahead(queue)
	}
	switch {
	case a.adapter != nil && a.host != nil:
		stages = append(stages, newReceiving(a.adapter.pipelines[queue], a.tap.Stage(queue, a.adapter.pipelines[queue]), a.host.consumer))
	case a.adapter != nil:
		stages = append(stages, a.tap.Stage(queue, a.adapter.pipelines[queue]))
	case a.host != nil:
		stages = append(stages, a.host.consumer)
	}
	return stages
}

// outward is the path of a frame to the wire: untouched, or sealed.
func (a *Appliance) outward(int) []nic.Stage {
	if a.host == nil {
		return nil
	}
	return []nic.Stage{&a.host.reassembler, a.host.sender}
}

// Run moves frames until ctx ends, and then returns nil, or until an interface
// fails; the error of a deleted one wraps tap.ErrGone. An Appliance runs once.
func (a *Appliance) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- a.nic.Run(ctx) }()
	<-a.opened
	if a.mirror != nil {
		go func() { stop(a.mirror.Run(ctx)) }()
	}
	go a.announce(ctx)
	defer func() { stop(nil); <-a.ready }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	logs := watchLogs(a.config.Logs)
	defer logs.Stop()
	var changed, reread <-chan struct{}
	if a.host != nil {
		changed = a.host.addresses.Changed()
	}
	for {
		select {
		case err := <-done:
			if failed := context.Cause(ctx); !errors.Is(failed, context.Canceled) {
				err = errors.Join(err, failed)
			}
			return err
		case <-changed:
			a.follow()
		case <-logs.C:
			if reread == nil && logs.grown() {
				reread = inBackground(func() { logs.settle(); a.reread() }) // and grown is not called meanwhile
			}
		case <-reread:
			reread = nil
		case now := <-second.C:
			a.tick(now)
		}
	}
}

// inBackground runs do, and returns a channel that is closed after that.
func inBackground(do func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	return done
}

// Rounds counts each worker's rounds: one for every batch of frames, and at least one a
// second when there are none. A worker whose count stands still moves no frames.
func (a *Appliance) Rounds() []uint64 { return a.nic.Rounds() }

// Ready returns a channel that is closed when frames flow, or when Run ends before they do.
func (a *Appliance) Ready() <-chan struct{} { return a.ready }

// Flows reports whether frames have begun to flow.
func (a *Appliance) Flows() bool { return a.flows.Load() }

// Steering returns how a frame's queue is chosen.
func (a *Appliance) Steering() tap.Steering { return a.ports.steering }

// announce waits until the kernel sends through both interfaces, which one without the other
// end may never do, and says so, unless ctx ends.
func (a *Appliance) announce(ctx context.Context) {
	defer close(a.ready)
	err := a.ports.ready(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.log.Warn("an interface does not come up", "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.followInterfaces()
	engine, why := a.nic.Engine()
	a.tell(event.Engine, slog.String("is", engine.String()), slog.String("why", why))
	if a.host != nil {
		a.log.Info("stack", "merged", a.ports.host.Merging())
	}
	if a.config.Queues > 1 {
		a.log.Info("queues", "are", a.config.Queues, "steered_by", a.ports.steering, "why", a.ports.steerWhy)
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "ready", a.shape()...)
	a.flows.Store(true)
}

// tick is called each second, beside the frames.
func (a *Appliance) tick(now time.Time) {
	a.losses.watch(a.nic.Summary(), a.ports.drops())
	a.watch(now)
	a.ports.look(a.losses.left)
	a.lookAtSocket()
	a.mu.Lock()
	a.settle()
	a.mu.Unlock()
	if a.adapter != nil {
		a.adapter.sad.Tick()
	}
	if a.failures != nil {
		a.failures.silent(false)
	}
	if a.host == nil {
		return
	}
	a.host.consumer.Tick(now.UnixNano())
	a.host.sender.Tick()
	a.follow()
}

// follow adopts the current addresses of the stack's interface and the wire's MTU. If the MTU
// cannot be read, the last one stays.
func (a *Appliance) follow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	mtu, err := a.ports.mtu(a.config)
	resized, moved := err == nil && mtu != a.host.mtu, a.host.moved(a.config)
	if !resized && !moved {
		return
	}
	now := *a.config
	now.SAs = a.roster.sas(anyMember)
	if resized {
		a.host.resize(&now, mtu)
	}
	if moved {
		a.host.follow(&now)
	}
}

// shape says what runs, for the log.
func (a *Appliance) shape() []slog.Attr {
	shape := []slog.Attr{slog.String("wire", a.config.Wire.Name)}
	if a.host != nil {
		shape = append(shape, slog.String("stack", a.config.Host.Name))
	} else {
		shape = append(shape, slog.String("host", a.config.Host.Name), slog.Int("queues", a.config.Queues))
	}
	if a.adapter != nil {
		shape = append(shape, slog.Int("sas", a.adapter.sad.Count()), slog.Bool("offload", a.config.Offload.Active))
	}
	if a.host != nil {
		shape = append(shape, slog.Int("inbound", a.host.inbound), slog.Int("outbound", a.host.outbound))
	}
	return shape
}

// warn logs what is allowed but unwise.
func (a *Appliance) warn(c *configs.Config) {
	for _, p := range c.Warnings {
		a.log.Warn(p.Msg, "at", fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col), "field", p.Field)
	}
}
