package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/configs"
	"tapsec/internal/control"
	"tapsec/internal/nic"
	"tapsec/sa"
	"tapsec/tap"
	"tapsec/transport"
)

// running is the program at work.
type running struct {
	options   runOptions
	config    *configs.Config
	appliance *appliance // nil: the NIC is elsewhere
	host      *host      // nil: the transport is elsewhere
	ports     *ports
	nic       *nic.NIC
	server    *control.Server // nil without --control
	resumed   bool            // the state file is ours
	console   *console
	log       *slog.Logger
}

// run is the program from start to stop.
//
//  1. Read the configuration, make the SAs' ciphers.
//  2. Open the interfaces; they close again however this ends.
//  3. Move frames until a signal or a failure.
//  4. Sum up, after failures too.
func run(ctx context.Context, o runOptions, out, errOut io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal kills
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, unix.SIGHUP)
	defer signal.Stop(reload)

	r, err := open(o, errOut)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = r.serve(ctx, reload, nil)
	r.console.end()
	return errors.Join(err, r.keep(true), r.summary(out, time.Since(begin)), r.close())
}

// open makes everything ready to move frames. On an error nothing is left.
func open(o runOptions, errOut io.Writer) (_ *running, err error) {
	r := &running{options: o, console: newConsole(errOut)}
	r.log = slog.New(slog.NewTextHandler(r.console, nil))
	if r.config, err = o.load(); err != nil {
		return nil, inputError(err)
	}
	if !o.noNIC {
		if r.appliance, err = newAppliance(r.config); err != nil {
			return nil, inputError(err)
		}
	}
	r.warn(r.config)
	if r.ports, err = openPorts(r.config, o.attach, o.steer); err != nil {
		return nil, err
	}
	if o.transport != "" {
		if r.host, err = newHost(r); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	if r.nic, err = r.ports.join(r.config, &r.options, r.inward, r.outward); err == nil {
		err = errors.Join(r.resume(), r.answer())
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *running) close() error {
	var err error
	if r.server != nil {
		err = r.server.Close()
	}
	if r.host != nil {
		err = errors.Join(err, r.host.close())
	}
	return errors.Join(err, r.ports.close())
}

// inward is a frame's way from the wire: through the NIC, then the transport.
func (r *running) inward(queue int) (stages []nic.Stage) {
	if r.appliance != nil {
		stages = append(stages, r.appliance.pipelines[queue])
	}
	if r.host != nil {
		stages = append(stages, r.host.consumer)
	}
	return stages
}

// outward is a frame's way to the wire: untouched, or sealed.
func (r *running) outward(int) []nic.Stage {
	if r.host == nil {
		return nil
	}
	return []nic.Stage{&r.host.whole, r.host.sender}
}

// serve moves frames and meanwhile answers signals. Ready is closed, where there
// is one, when frames flow.
func (r *running) serve(ctx context.Context, reload <-chan os.Signal, ready chan<- struct{}) error {
	done := make(chan error, 1)
	go func() { done <- r.nic.Run(ctx) }()
	if err := r.ports.ready(r.config); err != nil {
		r.log.Warn("an interface does not come up", "err", err)
	}
	engine, why := tap.Probe()
	if r.options.engine != tap.Auto {
		engine, why = r.options.engine, "asked for"
	}
	r.log.Info("engine", "is", engine, "why", why)
	if r.config.Queues > 1 {
		r.log.Info("queues", "are", r.config.Queues, "steered_by", r.ports.steering, "why", r.ports.steerWhy)
	}
	r.log.Info("ready", r.shape()...)
	if ready != nil {
		close(ready)
	}
	progress, stop := r.console.ticks()
	defer stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-reload:
			r.reload()
		case <-progress:
			r.console.progress(r.line())
		case now := <-second.C:
			if r.host != nil {
				r.host.tick(now, r.config)
				if err := r.keep(false); err != nil {
					r.log.Error("the state file cannot be written", "err", err)
				}
			}
		}
	}
}

// shape says what runs, for the log.
func (r *running) shape() []any {
	shape := []any{"wire", r.config.Wire.Name}
	if r.host != nil {
		shape = append(shape, "stack", r.config.Host.Name)
	} else {
		shape = append(shape, "host", r.config.Host.Name, "queues", r.config.Queues)
	}
	if r.appliance != nil {
		shape = append(shape, "sas", len(r.appliance.sad.List()), "offload", r.config.Offload.Active)
	}
	if r.host != nil {
		inbound, outbound := r.config.Sides(r.host.local)
		shape = append(shape, "inbound", len(inbound), "outbound", len(outbound))
	}
	return shape
}

// line is the progress so far.
func (r *running) line() string {
	moved := r.nic.Summary()
	line := fmt.Sprintf("%s to %s: %d frames", r.config.Wire.Name, r.config.Host.Name, moved.ToHost.Out)
	if r.appliance != nil {
		line += fmt.Sprintf(", %d failed", r.appliance.failed())
	}
	if r.host != nil {
		line += fmt.Sprintf(", %d dropped", r.host.consumer.Summary().Verdicts[transport.Drop.String()])
	}
	return line + fmt.Sprintf("; back: %d frames", moved.ToWire.Out)
}

// reload takes over SAs, policy and offload switches from the file. What cannot
// change while frames flow stays and is named; a mistake leaves everything as it
// is.
func (r *running) reload() {
	next, err := r.options.load()
	if err != nil {
		r.refuse(err)
		return
	}
	for _, field := range fixed(r.config, next) {
		r.log.Warn("this change needs a restart", "field", field)
	}
	if err := place(next, r.config); err != nil {
		r.refuse(err)
		return
	}
	if err := r.adopt(next); err != nil {
		r.refuse(err)
		return
	}
	r.config = next
	r.warn(next)
	r.log.Info("reloaded", r.shape()...)
}

// adopt puts a configuration in force, first where frames come in last, so that
// the NIC opens nothing that the transport does not know.
func (r *running) adopt(next *configs.Config) error {
	if r.host != nil {
		if err := r.host.adopt(next); err != nil {
			return err
		}
	}
	if r.appliance != nil {
		return r.appliance.offload(next)
	}
	return nil
}

// fixed names the fields in which two configurations differ and that cannot
// change in a running appliance.
func fixed(old, next *configs.Config) []string {
	var fields []string
	check := func(field string, same bool) {
		if !same {
			fields = append(fields, field)
		}
	}
	check("profile", old.Profile.Name == next.Profile.Name)
	check("sa_capacity", old.SACapacity == next.SACapacity)
	check("queues", old.Queues == next.Queues)
	check("wire", old.Wire == next.Wire)
	check("host", old.Host == next.Host)
	check("on_failure", old.OnFailure == next.OnFailure)
	return fields
}

// place gives next the fixed fields of the running configuration, whose profile
// may have no room for an SA that the file's has room for.
func place(next, old *configs.Config) error {
	next.Profile, next.SACapacity, next.Queues = old.Profile, old.SACapacity, old.Queues
	next.Wire, next.Host, next.OnFailure = old.Wire, old.Host, old.OnFailure
	for _, s := range next.Unoffloaded() {
		if s.Offload == sa.Required {
			return fmt.Errorf("%s does not fit into the running profile %s of capacity %d; restart to change it", s, old.Profile.Name, old.Capacity())
		}
	}
	return nil
}

// refuse logs every mistake of a file that is not taken over.
func (r *running) refuse(err error) {
	var mistakes configs.Errors
	if !errors.As(err, &mistakes) {
		r.log.Error("reload", "err", err)
	}
	for _, p := range mistakes {
		r.log.Error(p.Msg, "at", fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col), "field", p.Field, "text", p.Text)
	}
	r.log.Error("reload refused: the SAs and switches in force stay")
}

// warn logs what is allowed but unwise, and which SAs stay with the transport.
func (r *running) warn(c *configs.Config) {
	for _, p := range c.Warnings {
		r.log.Warn(p.Msg, "at", fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col), "field", p.Field)
	}
}
