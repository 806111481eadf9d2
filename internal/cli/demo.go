//go:build linux

package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/exit"
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
transport that let nothing bad through. Root is not needed if the kernel grants
user namespaces; if there can be no TAP, the same frames go through the
pipeline in memory.

The first line says which rig it is. Exit code 4 means that an answer was not
as expected.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out = cmd.OutOrStdout()
			if o.traffic < 0 || o.traffic > time.Minute {
				return inputError(fmt.Errorf("--traffic: expected 0s to 1m, found %s", o.traffic))
			}
			return demo(cmd, o)
		},
	}
	cmd.Flags().BoolVar(&o.memory, "memory", false, "no TAPs: run the frames through the pipeline in memory")
	cmd.Flags().DurationVar(&o.traffic, "traffic", 3*time.Second, "`TIME` of mixed traffic after the table, up to 1m")
	return cmd
}

// demo shows the table in a rig. Outside one it runs itself again in a rig or, if there
// can be none, in memory.
func demo(cmd *cobra.Command, o demoOptions) error {
	switch {
	case rig.Inside():
		bed, err := testbed.OpenTAPs()
		if err != nil {
			return demoInMemory(o, err.Error())
		}
		fmt.Fprintln(o.out, "rig: taps")
		if err := errors.Join(showTable(o, bed), bed.Close()); err != nil {
			return err
		}
		good, err := hosts.Show(o.out)
		if err == nil && !good {
			err = exit.Mark(exit.Disagree, errors.New("the whole system did not do what it should"))
		}
		return err
	case o.memory:
		return demoInMemory(o, "asked for with --memory")
	}
	err := inRig(cmd)
	if none := (noRig{}); errors.As(err, &none) {
		return demoInMemory(o, none.Error())
	}
	return err
}

func demoInMemory(o demoOptions, why string) error {
	fmt.Fprintf(o.out, "rig: memory (%s)\n", why)
	return showTable(o, &testbed.Memory{})
}

// showTable shows the contract's table and mixed traffic on a NIC.
func showTable(o demoOptions, b testbed.Bed) error {
	good, err := testbed.Show(o.out, b, o.traffic)
	if err == nil && !good {
		err = exit.Mark(exit.Disagree, errors.New("some frames, or the mixed traffic, were not annotated as the contract says"))
	}
	return err
}
