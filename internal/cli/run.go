//go:build linux

package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/console"
	"tapsec/internal/daemon"
	"tapsec/internal/files"
	"tapsec/internal/logging"
	"tapsec/tap"
)

// runOptions are the flags of run, transport and send, which are one program
// with or without a NIC, with or without a transport. What is empty or 0 leaves
// the configuration as it is.
type runOptions struct {
	config               string
	keys                 []string
	wire, host           string
	wireNetns, hostNetns string
	queues               int
	form                 configs.Form
	annotate             configs.Annotate
	inactive             bool

	transport string // the stack's TAP, which then stands in the place of host; empty: no transport
	attach    bool   // the wire exists already and is not to become a TAP of ours
	noNIC     bool   // the NIC is in another process: frames come annotated
	nic       string // its control socket
	state     string // file that keeps the windows
	control   string // our control socket
	metrics   string // address for Prometheus
	mirror    mirrorFlag
	engine    tap.Engine
	steer     tap.Steering
	busyPoll  time.Duration
	unmerged  tap.Merging
	use       []string
	first     uint64
	confine   bool
	log       logging.Options
}

// stackFlags are those of every command with a transport.
func (o *runOptions) stackFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.hostNetns, "stack-netns", "", "network namespace `NAME` for the stack's side of its TAP")
	f.StringVar(&o.state, "state", "", "`FILE` in which sequence windows and numbers live as long as their keys")
	f.StringSliceVar(&o.use, "sa", nil, "seal with the SAs of these `NAMES`, innermost first (default: those that fit each packet)")
	unmergedFlag(cmd, &o.unmerged)
	f.Uint64Var(&o.first, "first", 0, "sequence `NUMBER` of the first packet sealed (default 1)")
}

// unmergedFlag is of every command with a stack behind it.
func unmergedFlag(cmd *cobra.Command, m *tap.Merging) {
	cmd.Flags().TextVar(m, "unmerged", tap.Merging(0), "`WHAT` does not pass merged between program and stack: tso, uso (TCP, UDP that it sends), gro (what it gets), some of them with commas, or all")
}

// commonFlags are those of every command that runs.
func (o *runOptions) commonFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE`")
	f.StringArrayVarP(&o.keys, "keys", "k", nil, "`FILE` with SAs in another tool's form, once or several times, with a configuration or without")
	f.StringVar(&o.control, "control", "", "answer questions on a Unix socket at this `PATH`")
	f.StringVar(&o.metrics, "metrics", "", "answer Prometheus at this `ADDRESS`, such as 127.0.0.1:9464")
	f.TextVar(&o.engine, "engine", tap.Auto, "`HOW` frames are moved: auto, ring (none has a call of its own), plain (read and write) or xdp (attached interfaces by AF_XDP)")
	f.BoolVar(&o.confine, "confine", true, "once all is open, give up capabilities, files and system calls that are needed no more")
	f.TextVar(&o.log.Format, "log-format", logging.Text, "`FORM` of the log: text or json")
	f.TextVar(&o.log.Level, "log-level", logging.Level(slog.LevelInfo), "log nothing below this `LEVEL`: debug, info, warn or error")
	f.DurationVar(&o.busyPoll, "busy-poll", 0, "look for frames for this `TIME`, as 50us, before sleeping (default: sleep at once)")
}

func newRun() *cobra.Command {
	o := runOptions{}
	cmd := &cobra.Command{
		Use:   "run {-c FILE | -k FILE | --mirror-xfrm [NETNS]}",
		Short: "Be the NIC between two interfaces, until stopped",
		Long: `run makes the wire's and the host's TAP, or takes those that ip tuntap add made,
or where the configuration says attach: true an interface of any kind, and leads
every frame from wire to host through the appliance; from host to wire bytes
pass untouched. The log line with msg=ready says that frames flow. The log is on
standard error; where nobody reads it lines are lost, and counted, but no
frames.

SIGINT and SIGTERM end it, with a summary on standard output. SIGHUP rereads the
SAs and the offload switches without losing a frame; a file with a mistake
changes nothing. A deleted interface ends it with exit code 3. Interfaces that
it made vanish with it.

With --mirror-xfrm the NIC has, beside those of its files, the SAs that the
kernel has, here or in a namespace: it follows what an IKE daemon adds and
deletes there.

With --transport it is the whole receiving host: behind the NIC the transport
checks sequence numbers and policy, does in software what the NIC has left, and
gives clean packets to the kernel's stack on that TAP. What the stack sends is
sealed where the configuration has SAs to others than its own addresses, and
goes out in clear where not.`,
		Example: `  tapsec run -c configs/example.yaml
  tapsec run -c site.yaml --host plain0 --host-netns ids --form decap
  ip xfrm state >sas && tapsec run -k sas
  tapsec run -k /var/log/charon.log    # follows each rekey`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 1 && o.mirror == here { // pflag leaves it to us: a value apart is no flag's that may do without
				return o.mirror.Set(given[0])
			}
			return args(0)(cmd, given)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("queues") && o.queues == 0 {
				return inputError(queuesError(0))
			}
			return run(cmd, o)
		},
	}
	o.commonFlags(cmd)
	o.stackFlags(cmd)
	o.nicFlags(cmd)
	completeFlags(cmd)
	return cmd
}

// nicFlags are those of a NIC of our own, and of what stands at its two sides.
func (o *runOptions) nicFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.transport, "transport", "", "be the transport too, in front of the stack on the TAP `NAME`, which takes the host's place")
	f.StringVar(&o.wire, "wire", "", "`NAME` of the wire's TAP (default: the configuration's, as for all below)")
	f.StringVar(&o.host, "host", "", "`NAME` of the host's TAP")
	f.StringVar(&o.wireNetns, "wire-netns", "", "network namespace `NAME` for the kernel's side of the wire")
	f.StringVar(&o.hostNetns, "host-netns", "", "network namespace `NAME` for the kernel's side of the host")
	f.Var(&o.mirror, "mirror-xfrm", "also hold the SAs of the kernel, here or in the namespace `[NETNS]`, as it adds and deletes them")
	f.Lookup("mirror-xfrm").NoOptDefVal = here
	f.IntVar(&o.queues, "queues", 0, "`NUMBER` of queues, each with workers of its own")
	f.TextVar(&o.steer, "steer", tap.SteerAuto, "what a frame's queue is chosen `BY`: auto, spi (its SPI; needs CAP_BPF) or flow (the kernel's hash)")
	f.TextVar(&o.form, "form", configs.Form(""), "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off")
	f.TextVar(&o.annotate, "annotate", configs.Annotate(""), "`WHAT` stands behind each frame: trailer, the verdict, or none, with decap only")
	f.BoolVar(&o.inactive, "inactive", false, "do not activate receive offload")
}

// run is the program from start to stop. It sums up after failures, too.
func run(cmd *cobra.Command, o runOptions) error {
	if err := o.checkOutputs(); err != nil {
		return inputError(err)
	}
	process, err := daemon.New(cmd.Context())
	if err != nil {
		return err
	}
	defer process.Close()
	said := console.New(cmd.ErrOrStderr())
	log := logging.New(said, o.log)
	for _, name := range o.ignored(cmd) {
		which := "without"
		if o.transport == "" {
			which = "with"
		}
		log.Logger().Warn("without effect: it is for a program "+which+" a transport", "flag", name)
	}
	a, err := appliance.New(o.appliance(log.Logger()))
	if err != nil {
		log.Close()
		return err
	}
	end := said.Show(func() string { s := a.Summary(); return s.Line() })
	err = process.Run(a)
	s := a.Summary()
	err = errors.Join(err, a.Close())
	log.Close()
	end()
	return errors.Join(err, console.Bounded(func() error { return s.WriteText(cmd.OutOrStdout()) }))
}

// checkOutputs reports whether the state file, or the one that is renamed to it, is
// an input.
func (o *runOptions) checkOutputs() error {
	if o.state == "" {
		return nil
	}
	in, path := files.Inputs{Paths: append([]string{o.config}, o.keys...)}, o.state
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return errors.Join(in.Refuse("--state", path), in.Refuse("--state", path+".new"))
}

// appliance is what the flags ask for.
func (o *runOptions) appliance(log *slog.Logger) appliance.Options {
	want := appliance.Options{
		Load: o.load, NoNIC: o.noNIC, Transport: o.transport != "", NIC: o.nic,
		State: o.state, Control: o.control, Metrics: o.metrics, Mirror: o.mirror != "", MirrorIn: strings.TrimPrefix(string(o.mirror), here), Engine: o.engine, Steering: o.steer, BusyPoll: o.busyPoll, Unmerged: o.unmerged,
		First: o.first, Confine: o.confine, Log: log,
	}
	if len(o.use) > 0 {
		want.Use = [][]string{o.use}
	}
	return want
}

// load reads the configuration and lays the flags over it.
func (o *runOptions) load() (*configs.Config, error) {
	c, err := o.read()
	if err != nil {
		return nil, err
	}
	override(&c.Wire.Name, o.wire)
	override(&c.Host.Name, o.host)
	override(&c.Host.Name, o.transport)
	override(&c.Wire.Netns, o.wireNetns)
	override(&c.Host.Netns, o.hostNetns)
	c.Wire.Attach = o.attach || c.Wire.Attach && !o.noNIC // with a NIC elsewhere the file's wire is that one's
	override(&c.Queues, o.queues)
	override(&c.Host.Form, o.form)
	override(&c.Host.Annotate, o.annotate)
	c.Offload.Active = c.Offload.Active && !o.inactive
	if o.transport != "" {
		c.Host.Form, c.Host.Annotate, c.Host.Attach = configs.InPlace, configs.Trailer, false
	}
	switch {
	case o.transport != "" && c.Queues > 1:
		return nil, fmt.Errorf("%d queues: a transport has one; say --queues 1", c.Queues)
	case c.Queues < 1 || c.Queues > maxQueues:
		return nil, queuesError(c.Queues)
	case c.Wire.Name == c.Host.Name && c.Wire.Netns == c.Host.Netns:
		return nil, fmt.Errorf("wire and host are both %s: give them different names", c.Wire.Name)
	}
	return c, errors.Join(checkNames(c), c.Live())
}

// read reads the files. Each reload does so again.
func (o *runOptions) read() (*configs.Config, error) {
	switch {
	case o.config == "" && len(o.keys) == 0 && o.mirror != "":
		return configs.Default(), nil
	case o.config == "" && len(o.keys) == 0:
		return nil, errors.New("give the configuration with -c FILE; configs/minimal.yaml is the smallest sample")
	case slices.Contains(o.keys, "-"):
		return nil, errors.New("-k -: expected a file, which a reload can read again")
	case o.config == "":
		return o.takeOver()
	}
	c, err := configs.Load(o.config)
	if err != nil || len(o.keys) == 0 {
		return c, err
	}
	more, err := o.takeOver()
	if err != nil {
		return nil, err
	}
	return c, c.Take(more)
}

// takeOver reads the SAs of other tools that a running program goes on with.
func (o *runOptions) takeOver() (*configs.Config, error) {
	c, err := configs.LoadKeys(o.keys, nil)
	if err != nil {
		return nil, err
	}
	c.TakeOver()
	return c, nil
}

// checkNames reports whether the kernel takes the interfaces' names.
func checkNames(c *configs.Config) error {
	return errors.Join(tap.CheckName(c.Wire.Name), tap.CheckName(c.Host.Name))
}

// mirrorFlag is the namespace of the kernel whose SAs are followed, or here; empty is
// none. It may do without a value, as a bool does.
type mirrorFlag string

const here = "true"

func (m *mirrorFlag) Set(name string) error {
	*m = mirrorFlag(name)
	return nil
}

func (m *mirrorFlag) String() string { return string(*m) }
func (m *mirrorFlag) Type() string   { return "bool" }

const maxQueues = 256 // of a TAP

func queuesError(found int) error {
	return fmt.Errorf("--queues: expected 1 to %d, found %d", maxQueues, found)
}

// ignored names the flags that were given and have no effect beside the others.
func (o *runOptions) ignored(cmd *cobra.Command) (names []string) {
	for _, name := range []string{"state", "sa", "first", "unmerged", "form", "annotate"} {
		ofTransport := name != "form" && name != "annotate"
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && ofTransport != (o.transport != "") {
			names = append(names, "--"+name)
		}
	}
	return names
}

// override replaces *v where a flag was given.
func override[T comparable](v *T, flag T) {
	var none T
	if flag != none {
		*v = flag
	}
}
