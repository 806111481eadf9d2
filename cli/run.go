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

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tapsec/configs"
	"tapsec/nic"
	"tapsec/sa"
	"tapsec/tap"
)

// runOptions are the flags of run. What is empty or 0 leaves the configuration
// as it is.
type runOptions struct {
	config               string
	wire, host           string
	wireNetns, hostNetns string
	queues               int
	form                 configs.Form
	annotate             configs.Annotate
	inactive             bool
}

func newRun() *cobra.Command {
	o := runOptions{}
	var form, annotate string
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Be the NIC between two TAP interfaces, until stopped",
		Long: `run makes the wire's and the host's TAP, or attaches to those that ip tuntap add
made, and leads every frame from wire to host through the appliance; from host
to wire bytes pass untouched. The log line with msg=ready says that frames
flow.

SIGINT and SIGTERM end it, with a summary on standard output. SIGHUP rereads the
SAs and the offload switches without losing a frame; a file with a mistake
changes nothing. A deleted interface ends it with exit code 3. Interfaces that
it made vanish with it.`,
		Example: `  tapsec run -c configs/example.yaml
  tapsec run -c site.yaml --host plain0 --host-netns ids --form decap`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(setText(&o.form, form, "--form"), setText(&o.annotate, annotate, "--annotate")); err != nil {
				return inputError(err)
			}
			return run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE`")
	f.StringVar(&o.wire, "wire", "", "`NAME` of the wire's TAP (default: the configuration's, as for all below)")
	f.StringVar(&o.host, "host", "", "`NAME` of the host's TAP")
	f.StringVar(&o.wireNetns, "wire-netns", "", "network namespace `NAME` for the kernel's side of the wire")
	f.StringVar(&o.hostNetns, "host-netns", "", "network namespace `NAME` for the kernel's side of the host")
	f.IntVar(&o.queues, "queues", 0, "`NUMBER` of queues, each with workers of its own")
	f.StringVar(&form, "form", "", "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off")
	f.StringVar(&annotate, "annotate", "", "`WHAT` stands behind each frame: trailer, the verdict, or none, with decap only")
	f.BoolVar(&o.inactive, "inactive", false, "do not activate receive offload")
	completeFlags(cmd)
	return cmd
}

// completeFlags tells the shell what the flags of run and replay take.
func completeFlags(cmd *cobra.Command) {
	fixed := func(names ...cobra.Completion) cobra.CompletionFunc {
		return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
	}
	// Errors would say that there is no such flag.
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	_ = cmd.RegisterFlagCompletionFunc("form", fixed(string(configs.InPlace), string(configs.Decap)))
	_ = cmd.RegisterFlagCompletionFunc("annotate", fixed(string(configs.Trailer), string(configs.None)))
}

// load reads the configuration and lays the flags over it.
func (o *runOptions) load() (*configs.Config, error) {
	if o.config == "" {
		return nil, errors.New("give the configuration with -c FILE; configs/minimal.yaml is the smallest sample")
	}
	c, err := configs.Load(o.config)
	if err != nil {
		return nil, err
	}
	override(&c.Wire.Name, o.wire)
	override(&c.Host.Name, o.host)
	override(&c.Wire.Netns, o.wireNetns)
	override(&c.Host.Netns, o.hostNetns)
	override(&c.Queues, o.queues)
	override(&c.Host.Form, o.form)
	override(&c.Host.Annotate, o.annotate)
	c.Offload.Active = c.Offload.Active && !o.inactive
	switch {
	case c.Queues < 1 || c.Queues > maxQueues:
		return nil, fmt.Errorf("--queues: expected 1 to %d, found %d", maxQueues, c.Queues)
	case c.Wire.Name == c.Host.Name && c.Wire.Netns == c.Host.Netns:
		return nil, fmt.Errorf("wire and host are both %s: give them different names", c.Wire.Name)
	}
	return c, errors.Join(checkNames(c), c.Live())
}

// checkNames tells whether the kernel takes the interfaces' names.
func checkNames(c *configs.Config) error {
	return errors.Join(tap.CheckName(c.Wire.Name), tap.CheckName(c.Host.Name))
}

const maxQueues = 256 // of a TAP

// override replaces *v where a flag was given.
func override[T comparable](v *T, flag T) {
	var none T
	if flag != none {
		*v = flag
	}
}

// running is the appliance at work.
type running struct {
	options runOptions
	config  *configs.Config
	*appliance
	ports   *ports
	nic     *nic.NIC
	console *console
	log     *slog.Logger
}

// run is the NIC from start to stop.
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

	r := &running{options: o, console: newConsole(errOut)}
	r.log = slog.New(slog.NewTextHandler(r.console, nil))
	var err error
	if r.config, err = o.load(); err != nil {
		return inputError(err)
	}
	if r.appliance, err = newAppliance(r.config); err != nil {
		return inputError(err)
	}
	r.warn(r.config)
	if r.ports, err = openPorts(r.config); err != nil {
		return err
	}
	defer r.ports.close()
	if r.nic, err = r.ports.join(r.config, r.chain); err != nil {
		return err
	}
	begin := time.Now()
	err = r.serve(ctx, reload)
	r.console.end()
	return errors.Join(err, summary(out, r.config, time.Since(begin), r.nic.Summary(), r.appliance, r.ports))
}

// serve moves frames and meanwhile answers signals.
func (r *running) serve(ctx context.Context, reload <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- r.nic.Run(ctx) }()
	if err := r.ports.ready(r.config); err != nil {
		r.log.Warn("an interface does not come up", "err", err)
	}
	r.log.Info("ready", "wire", r.config.Wire.Name, "host", r.config.Host.Name, "queues", r.config.Queues,
		"sas", len(r.sad.List()), "offload", r.config.Offload.Active)
	ticks, stop := r.console.ticks()
	defer stop()
	for {
		select {
		case err := <-done:
			return err
		case <-reload:
			r.reload()
		case <-ticks:
			r.console.progress(r.line())
		}
	}
}

// line is the progress so far.
func (r *running) line() string {
	moved := r.nic.Summary()
	return fmt.Sprintf("%s to %s: %d frames, %d failed; back: %d frames",
		r.config.Wire.Name, r.config.Host.Name, moved.ToHost.Out, r.failed(), moved.ToWire.Out)
}

// reload takes over SAs and offload switches from the file. What cannot change
// while frames flow stays and is named; a mistake leaves everything as it is.
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
	if err := r.offload(next); err != nil {
		r.refuse(err)
		return
	}
	r.config = next
	r.warn(next)
	r.log.Info("reloaded", "sas", len(r.sad.List()), "offload", next.Offload.Active)
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
	return fields
}

// place gives next the fixed fields of the running configuration, whose profile
// may have no room for an SA that the file's has room for.
func place(next, old *configs.Config) error {
	next.Profile, next.SACapacity, next.Queues = old.Profile, old.SACapacity, old.Queues
	next.Wire, next.Host = old.Wire, old.Host
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
