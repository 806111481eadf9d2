//go:build linux

package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/exit"
	"tapsec/internal/lab/bench"
	"tapsec/internal/lab/rig"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	bench.Options
	asJSON      bool
	out, stderr io.Writer
}

func newBench() *cobra.Command {
	o := benchOptions{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the appliance here, beside forwarders that do nothing",
		Long: `bench makes a network of its own that ends with it, and measures in it, on TAPs
except for some parts:

cpu      how much processor time a frame takes. Frames wait in the wire's
         queue and one core moves them: variants alternate in random order,
         and the figures are medians with quartiles.
           a  null-plain  a Read and a Write of the TAP library's file, nothing
                          else: what programs on TUN and TAP do
           b  null-ring   the ring engine with an empty chain
           c  plain       the appliance on the plain engine, with annotation
           d  ring        the appliance on the ring
attached the same from one veth to another: a read(2) and a write(2) for each
         frame, each engine but plain with an empty chain, and the appliance on
         each engine
queues   two queues on two cores, and more if there are more, against one
latency  how long a frame that comes alone takes, beside a blocking read and
         write
idle     what is done while no frame comes
replay   a capture in memory, reported as lines, as JSON, in a file, as a sum;
         beside tcpdump, and tshark that decrypts, where they are installed
table    a configuration of 100000 SAs, and of a million if this part is named:
         reading it, keying a NIC and a transport, a reload in which one SA has
         changed, and frames of SAs at random. A million take 6 GB
system   the whole way: one TCP flow of iperf3 from one stack through a tunnel
         and transport mode to another, with packets merged between transport
         and stack, and without; all processes together. It needs iperf3. Beside
         wireguard-go, if PATH has it or TAPSEC_WIREGUARD_GO names it

Each frame is accounted for, and a round with a loss is reported and not
counted. A peer that is not installed is left out, with a note. Keep the machine
quiet meanwhile: trust ratios within a run, not figures from two.

Root is not needed if the kernel grants user namespaces. Exit code 1: the
machine lacks something, or frames were lost; 4: a frame did not come out as it
should.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := o.check(); err != nil {
				return inputError(err)
			}
			return runBench(cmd, o)
		},
	}
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "end within 55 seconds: fewer rounds, and so wider quartiles")
	cmd.Flags().IntVar(&o.Rounds, "rounds", 0, "at most `NUMBER` rounds of each kind; 0 means as many as fit into the time")
	cmd.Flags().StringSliceVar(&o.Only, "only", nil, "do only these `PARTS`, with commas: "+strings.Join(bench.Parts, ", "))
	_ = cmd.RegisterFlagCompletionFunc("only", several(bench.Parts...))
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print one JSON object")
	return cmd
}

func (o *benchOptions) check() error {
	if o.Rounds < 0 {
		return fmt.Errorf("--rounds: expected a number from 0 on, found %d", o.Rounds)
	}
	for _, part := range o.Only {
		if !slices.Contains(bench.Parts, part) {
			return fmt.Errorf("--only: expected some of %s, found %q", strings.Join(bench.Parts, ", "), part)
		}
	}
	return nil
}

// runBench measures in a rig: inside one at once, outside by running itself again in one.
func runBench(cmd *cobra.Command, o benchOptions) error {
	if rig.Inside() {
		fmt.Fprintf(o.stderr, "Measuring for %s or less.\n", o.Lasts().Round(time.Second))
		r, err := bench.Run(o.Options)
		if err != nil {
			return err
		}
		return o.report(r)
	}
	err := inRig(cmd)
	if none := (noRig{}); errors.As(err, &none) {
		return fmt.Errorf("bench needs a rig: %w", none.error)
	}
	return err
}

// report prints what was measured; the error decides about the exit code.
func (o benchOptions) report(r *bench.Report) error {
	if err := show(o.out, o.asJSON, r); err != nil {
		return err
	}
	switch {
	case len(r.Wrong) > 0:
		return exit.Mark(exit.Disagree, errors.New("frames did not come out as they should: "+r.Wrong[0]))
	case len(r.Losses) > 0:
		return fmt.Errorf("%d rounds lost frames and are not counted, the first: %s", len(r.Losses), r.Losses[0])
	}
	return nil
}
