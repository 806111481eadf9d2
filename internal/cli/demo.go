package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/internal/lab/testbed"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	memory  bool
	traffic time.Duration
	out     io.Writer
}

func newDemo() *cobra.Command {
	o := demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole appliance at work in a throw-away rig",
		Long: `demo makes a network of its own that ends with it, opens the appliance's two
TAPs there, sends one frame for each row of the contract's table into the wire
TAP, and shows what arrives on the host TAP. A few seconds of mixed traffic
follow, and then the whole system: two hosts, a wire between them, and NIC and
transport that let nothing bad through. Root is not needed where the kernel grants user namespaces; where no TAP
can be had, the same frames go through the pipeline in memory.

The first line says which rig it is. Exit code 4 means that an answer was not
the expected one.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out = cmd.OutOrStdout()
			if o.traffic < 0 || o.traffic > time.Minute {
				return inputError(fmt.Errorf("--traffic: expected 0s to 1m, found %s", o.traffic))
			}
			return demo(o)
		},
	}
	cmd.Flags().BoolVar(&o.memory, "memory", false, "no TAPs: run the frames through the pipeline in memory")
	cmd.Flags().DurationVar(&o.traffic, "traffic", 3*time.Second, "`time` of mixed traffic after the table, up to 1m")
	return cmd
}

// demo finds a rig and shows the table in it: inside one it is at work already,
// outside it runs itself again in one. What is missing for that leaves memory.
func demo(o demoOptions) error {
	switch {
	case rig.Inside():
		bed, err := testbed.OpenTAPs()
		if err != nil {
			return demoInMemory(o, err.Error())
		}
		fmt.Fprintln(o.out, "rig: taps")
		if err := errors.Join(show(o, bed), bed.Close()); err != nil {
			return err
		}
		good, err := hosts.Show(o.out)
		if err == nil && !good {
			err = exitError{exitDisagree, errors.New("the whole system did not do what it should")}
		}
		return err
	case o.memory:
		return demoInMemory(o, "asked for with --memory")
	}
	err := inRig("demo", "--traffic", o.traffic.String())
	if none := (noRig{}); errors.As(err, &none) {
		return demoInMemory(o, none.Error())
	}
	return err
}

func demoInMemory(o demoOptions, why string) error {
	fmt.Fprintf(o.out, "rig: memory (%s)\n", why)
	return show(o, &testbed.Memory{})
}

// bed is a NIC to which frames can be sent and that answers with what a host would
// receive.
type bed interface {
	conformance.NIC
	Load(l *conformance.Lab, d time.Duration) (testbed.Load, error)
}

// show sends every case to the testbed, prints what came back in the order of
// the contract's table, and then sends mixed traffic.
func show(o demoOptions, b bed) error {
	labs := conformance.Labs()
	results, err := conformance.Run(b, labs)
	if err != nil {
		return err
	}
	conformance.Sort(results)
	fmt.Fprintf(o.out, "\n%-4s %-44s %-9s %-9s %-5s %-5s %-32s %s\n",
		"row", "frame", "expected", "seen", "Done", "Next", "CryptoStatus", "reason")
	wrong := 0
	for i := range results {
		fmt.Fprintln(o.out, line(&results[i]))
		if !results[i].Passed() {
			wrong++
		}
	}
	fmt.Fprintf(o.out, "\n%d of %d frames annotated as expected.\n", len(results)-wrong, len(results))
	good, err := showLoad(o, b, labs)
	if err == nil && (wrong > 0 || !good) {
		err = exitError{exitDisagree, fmt.Errorf("%d of %d frames, or the mixed traffic, were not annotated as the contract says", wrong, len(results))}
	}
	return err
}

// line is a result's in the table.
func line(r *conformance.Result) string {
	w, mark := r.Seen.Word, ""
	if !r.Passed() {
		mark = fmt.Sprintf("   <-- expected %s, %s", r.Word, r.Reason)
	}
	return fmt.Sprintf("%-4s %-44s %-9s %-9s %-5d %-5d %-32s %s%s",
		r.Row, r.Title, r.Word, w, bit(w.Done()), bit(w.Next()), w.Code(), r.Seen.Reason.Sentence(), mark)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// showLoad sends mixed traffic: the cases of the lab with both layers, over and
// over.
func showLoad(o demoOptions, b bed, labs []conformance.Lab) (good bool, err error) {
	if o.traffic == 0 {
		return true, nil
	}
	for i := range labs {
		if labs[i].Name != "layers" {
			continue
		}
		if err := b.Ready(&labs[i]); err != nil {
			return false, err
		}
		r, err := b.Load(&labs[i], o.traffic)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(o.out, "Mixed traffic: %d frames sent in %.1f s, %d received, %d wrong or out of order.\n",
			r.Sent, r.Took.Seconds(), r.Received, r.Wrong)
		return r.Sent == r.Received && r.Wrong == 0, nil
	}
	return false, errors.New("no lab with both layers in the table")
}
