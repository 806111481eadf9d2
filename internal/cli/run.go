//go:build linux

package cli

import (
	"log/slog"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/internal/daemon"
	"tapsec/internal/logging"
	"tapsec/tap"
)

// runFlags are the flags of run, transport and send, which fill the settings of one program.
type runFlags struct{ daemon.Settings }

// stackFlags are the flags of every command with a transport.
func (o *runFlags) stackFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.HostNetns, "stack-netns", "", "network namespace `NAME` for the stack's side of its TAP")
	f.StringVar(&o.State, "state", "", "`FILE` in which sequence windows and numbers live as long as their keys")
	f.StringSliceVar(&o.Seal, "sa", nil, "seal with the SAs of these `NAMES`, with commas, innermost first (default: those that fit each packet)")
	unmergedFlag(cmd, &o.Unmerged)
	f.Uint64Var(&o.First, "first", 0, "sequence `NUMBER` of the first packet sealed (default 1)")
}

// unmergedFlag is for every command with a stack behind it.
func unmergedFlag(cmd *cobra.Command, m *tap.Merging) {
	cmd.Flags().TextVar(m, "unmerged", tap.Merging(0), "do not pass `WHAT` merged: between program and stack tso, uso (TCP, UDP that it sends), gro (what it gets); wire (ESP in UDP to a TAP); some with commas, or all")
}

// commonFlags are the flags of every command that runs.
func (o *runFlags) commonFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.Config, "config", "c", "", "configuration `FILE`")
	f.StringArrayVarP(&o.Keys, "keys", "k", nil, "`FILE` with SAs in another tool's form, once or several times, with a configuration or without")
	f.StringVar(&o.Control, "control", "", "answer questions on a Unix socket at this `PATH`")
	f.StringVar(&o.Metrics, "metrics", "", "answer Prometheus at this `ADDRESS`, such as 127.0.0.1:9464")
	f.TextVar(&o.Engine, "engine", tap.Auto, "`HOW` frames are moved: auto, ring (many with one call), plain (read and write), direct (as auto, but into attached interfaces past their queueing disciplines) or xdp (attached interfaces by AF_XDP)")
	f.BoolVar(&o.Confine, "confine", true, "once everything is open, give up capabilities, files and system calls that are no longer needed")
	f.TextVar(&o.Lines.Format, "log-format", logging.Text, "`FORM` of the log: text or json")
	f.TextVar(&o.Lines.Level, "log-level", logging.Level(slog.LevelInfo), "log nothing below this `LEVEL`: debug, info, warn or error")
	f.DurationVar(&o.BusyPoll, "busy-poll", 0, "look for frames for this `TIME`, such as 50us, before sleeping (default: sleep at once)")
}

func newRun() *cobra.Command {
	o := runFlags{}
	cmd := &cobra.Command{
		Use:   "run {-c FILE | -k FILE | --mirror-xfrm [NETNS]}",
		Short: "Be the NIC between two interfaces, until stopped",
		Long: `run makes the wire's and the host's TAP, or takes those that ip tuntap add made
or, with attach: true in the configuration, interfaces of any kind, and passes
every frame from wire to host through the appliance; from host to wire bytes
pass untouched. The log line with msg=ready says that frames flow. The log is on
standard error; if nobody reads it, lines are lost, and counted, but no frames.

SIGINT and SIGTERM end it, with a summary on standard output. SIGHUP rereads the
SAs and the offload switches without losing a frame; a file with a mistake
changes nothing. A deleted interface ends it with exit code 3. Interfaces that
it made disappear with it. What no flag says is as the configuration has it.

With --mirror-xfrm the NIC has, besides the SAs of its files, those of the
kernel, here or in a namespace: it follows what an IKE daemon adds and deletes
there.

With --transport it is the whole receiving host: behind the NIC the transport
checks sequence numbers and policy, does in software what the NIC left, and
gives clean packets to the kernel's stack on that TAP. What the stack sends is
sealed if the configuration has SAs to addresses other than its own, and goes
out in clear otherwise.`,
		Example: `  tapsec run -c configs/example.yaml
  tapsec run -c site.yaml --host plain0 --host-netns ids --form decap
  ip xfrm state >sas && tapsec run -k sas
  tapsec run -k /var/log/charon.log    # follows each rekey`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 1 && o.Mirror && o.MirrorIn == "" { // a separate value, which pflag leaves to us
				return mirrorFlag{&o.Settings}.Set(given[0])
			}
			return args(0)(cmd, given)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("queues") && o.Queues == 0 {
				return inputError(daemon.CheckQueues(0))
			}
			return o.run(cmd)
		},
	}
	o.commonFlags(cmd)
	o.stackFlags(cmd)
	o.nicFlags(cmd)
	return cmd
}

// nicFlags are the flags of a NIC of our own and of its two sides.
func (o *runFlags) nicFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.Stack, "transport", "", "be the transport too, before the stack on the TAP `NAME`, which replaces the host's")
	f.StringVar(&o.Wire, "wire", "", "`NAME` of the wire's TAP")
	f.StringVar(&o.Host, "host", "", "`NAME` of the host's TAP")
	f.StringVar(&o.WireNetns, "wire-netns", "", "network namespace `NAME` for the kernel's side of the wire")
	f.StringVar(&o.HostNetns, "host-netns", "", "network namespace `NAME` for the kernel's side of the host")
	f.Var(mirrorFlag{&o.Settings}, "mirror-xfrm", "also hold the kernel's SAs, here or in the namespace `[NETNS]`, as it adds and deletes them")
	f.Lookup("mirror-xfrm").NoOptDefVal = here
	f.IntVar(&o.Queues, "queues", 0, "`NUMBER` of queues, each with workers of its own")
	f.TextVar(&o.Steering, "steer", tap.SteerAuto, "choose a frame's queue `BY`: auto, spi (its SPI; needs CAP_BPF) or flow (the kernel's hash)")
	f.TextVar(&o.Form, "form", configs.Form(""), "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off")
	f.TextVar(&o.Annotate, "annotate", configs.Annotate(""), "`WHAT` follows each frame: trailer, the verdict, or none, with decap only")
	f.BoolVar(&o.Inactive, "inactive", false, "do not activate receive offload")
}

// run runs the program until it is stopped.
func (o *runFlags) run(cmd *cobra.Command) error {
	o.Ignored = o.ignored(cmd)
	return daemon.Run(cmd.Context(), o.Settings, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

// mirrorFlag takes the namespace of the kernel whose SAs are followed. Like a bool's, its
// value may be left out.
type mirrorFlag struct{ *daemon.Settings }

const here = "true" // the value left out

func (m mirrorFlag) Set(name string) error {
	if m.Mirror, m.MirrorIn = name != "", name; name == here {
		m.MirrorIn = ""
	}
	return nil
}

func (m mirrorFlag) String() string { return "" }
func (m mirrorFlag) Type() string   { return "bool" }

// ignored names the flags that were given and have no effect together with the others.
func (o *runFlags) ignored(cmd *cobra.Command) (names []string) {
	for _, name := range []string{"state", "sa", "first", "unmerged", "form", "annotate"} {
		ofTransport := name != "form" && name != "annotate"
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && ofTransport != (o.Stack != "") {
			names = append(names, "--"+name)
		}
	}
	return names
}
