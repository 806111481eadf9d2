package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
		Short: "Measure the appliance on this machine, beside forwarders that do nothing",
		Long: `bench makes a network of its own that ends with it, and measures on TAPs in it:

cpu      how much of the processor a frame takes. Frames wait in the wire's queue
         and one core moves them: variants alternate in random order, and the
         figures are medians with quartiles.
           a  null-plain  a Read and a Write of the TAP library's file, nothing
                          else: what programs on TUN and TAP do
           b  null-ring   the ring engine with an empty chain
           c  plain       the appliance, annotation included, on the plain engine
           d  ring        the appliance on the ring
queues   two queues on two cores, and more where there are more, against one
latency  how long a frame takes that comes alone, beside a blocking read and write
idle     what is done while no frame comes

Each frame is accounted for, and a round with a loss is reported and not counted.
Keep the machine quiet meanwhile: trust ratios of one run, not figures of two.

Root is not needed where the kernel grants user namespaces. Exit code 1: the
machine lacks something, or frames were lost; 4: a frame came out other than it
should.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if o.Rounds < 0 {
				return inputError(fmt.Errorf("--rounds: expected a number from 1, found %d", o.Rounds))
			}
			for _, part := range o.Only {
				if !slices.Contains(bench.Parts, part) {
					return inputError(fmt.Errorf("--only: expected some of %s, found %q", strings.Join(bench.Parts, ", "), part))
				}
			}
			return runBench(o)
		},
	}
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "end within 40 seconds: fewer rounds, and so wider quartiles")
	cmd.Flags().IntVar(&o.Rounds, "rounds", 0, "at most `so many` of each kind; 0 means what fits into the time")
	cmd.Flags().StringSliceVar(&o.Only, "only", nil, "leave out other `parts` than these: "+strings.Join(bench.Parts, ", "))
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print one JSON object")
	return cmd
}

// runBench measures in a rig: inside one at once, outside by running itself again in one.
func runBench(o benchOptions) error {
	if rig.Inside() {
		fmt.Fprintf(o.stderr, "Measuring for %s or less.\n", o.Lasts().Round(time.Second))
		r, err := bench.Run(o.Options)
		if err != nil {
			return err
		}
		return o.report(r)
	}
	err := inRig("bench", fmt.Sprint("--quick=", o.Quick), fmt.Sprint("--json=", o.asJSON), fmt.Sprint("--rounds=", o.Rounds), "--only="+strings.Join(o.Only, ","))
	if none := (noRig{}); errors.As(err, &none) {
		return fmt.Errorf("bench needs a rig: %w", none)
	}
	return err
}

// report prints what was measured, and says what that comes to for the exit code.
func (o benchOptions) report(r *bench.Report) error {
	var err error
	if o.asJSON {
		err = printJSON(o.out, r)
	} else {
		err = printBench(o.out, r)
	}
	if err != nil {
		return err
	}
	switch {
	case len(r.Wrong) > 0:
		return exitError{exitDisagree, errors.New("frames came out other than they should: " + r.Wrong[0])}
	case len(r.Losses) > 0:
		return fmt.Errorf("%d rounds lost frames and are not counted, the first: %s", len(r.Losses), r.Losses[0])
	}
	return nil
}

// printBench is the report for people.
func printBench(out io.Writer, r *bench.Report) error {
	m := r.Machine
	fmt.Fprintf(out, "%s, %d cores, Linux %s (page-table isolation: %s), %s\n", m.Processor, m.Cores, m.Kernel, m.Isolation, m.Go)
	fmt.Fprintf(out, "an empty system call: %.0f ns (%.0f-%.0f)\nengine %s: %s\n", m.EmptyCall.Median, m.EmptyCall.Q1, m.EmptyCall.Q3, m.Engine, m.EngineWhy)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	benchCPU(w, r)
	benchQueues(w, r)
	benchLatency(w, r)
	benchIdle(w, r)
	fmt.Fprintf(w, "\n%d frames were looked at one by one: %d wrong. Rounds that lost frames: %d.\n",
		r.Inspected, len(r.Wrong), len(r.Losses))
	for _, said := range [][]string{r.Notes, r.Losses, r.Wrong} {
		for _, line := range said {
			fmt.Fprintln(w, line)
		}
	}
	return w.Flush()
}

func benchCPU(w io.Writer, r *bench.Report) {
	if len(r.Rows) == 0 {
		return
	}
	fmt.Fprint(w, "\nNanoseconds of the processor for a frame, one core: median (quartiles)\n\n")
	fmt.Fprintln(w, "suite\tpayload\ta null-plain\tb null-ring\tc plain\td ring\td/a\td/b\tc/a\td frames/s\t")
	for _, c := range r.Compare {
		benchLine(w, r, c)
	}
}

func benchLine(w io.Writer, r *bench.Report, c bench.Comparison) {
	by := map[string]bench.Row{}
	for _, row := range r.Rows {
		if row.Suite == c.Suite && row.Size == c.Size {
			by[row.Variant] = row
		}
	}
	fmt.Fprintf(w, "%s\t%d\t", c.Suite, c.Size)
	for _, variant := range []string{bench.NullPlain, bench.NullRing, bench.OnPlain, bench.OnRing} {
		row, ok := by[variant]
		fmt.Fprintf(w, "%s\t", choose(ok, fmt.Sprintf("%.0f (%.0f-%.0f)", row.CPU, row.CPUSpread.Q1, row.CPUSpread.Q3), "-"))
	}
	for _, pair := range []string{"d/a", "d/b", "c/a"} {
		ratio, ok := c.Ratios[pair]
		fmt.Fprintf(w, "%s\t", choose(ok, fmt.Sprintf("%.2f", ratio), "-"))
	}
	row, ok := by[bench.OnRing]
	fmt.Fprintf(w, "%s\t\n", choose(ok, fmt.Sprintf("%.0f", row.Rate), "-"))
}

func benchQueues(w io.Writer, r *bench.Report) {
	if len(r.Queues) == 0 {
		return
	}
	fmt.Fprint(w, "\nSeveral queues, a core each, filled by another core: 1400 octets, aes128gcm16\n\n")
	fmt.Fprintln(w, "queues\tframes/s\ttimes one queue\tchosen by\t")
	for _, q := range r.Queues {
		fmt.Fprintf(w, "%d\t%.0f (%.0f-%.0f)\t%.2f\t%s\t\n", q.Queues, q.Rate, q.RateSpread.Q1, q.RateSpread.Q3, q.Times, choose(q.Queues > 1, q.Steering, "-"))
	}
}

func benchLatency(w io.Writer, r *bench.Report) {
	if len(r.Latency) == 0 {
		return
	}
	fmt.Fprint(w, "\nMicroseconds from sending a frame of 1400 octets until the host has it; sender on another core\n\n")
	fmt.Fprintln(w, "frames/s\t\tp50\tp99\tp99.9\tframes\t")
	for _, l := range r.Latency {
		fmt.Fprintf(w, "%d\t%s\t%.1f\t%.1f\t%.1f\t%d\t\n", l.Pace, l.Variant, l.P50/1000, l.P99/1000, l.P999/1000, l.Frames)
	}
}

func benchIdle(w io.Writer, r *bench.Report) {
	if len(r.Idle) == 0 {
		return
	}
	fmt.Fprint(w, "\nMicroseconds of the processor in a second without frames, the whole process\n\n")
	for _, i := range r.Idle {
		fmt.Fprintf(w, "%s\t%.0f\t\n", i.Variant, i.CPU)
	}
}
