package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"tapsec/control"
)

func newOffload() *cobra.Command {
	o := asked{}
	return o.does(&cobra.Command{
		Use:   "offload {on|off} [ah|esp]",
		Short: "Enable or disable the receive offload of a running appliance",
		Long: `offload switches the receive offload of a tapsec that runs with --control
PATH: all of it, or that of one protocol, which works while all of it is on,
too; capabilities shows all three. The next reload sets them to what the file
says.`,
		ValidArgsFunction: first(fixed("on", "off"), fixed("ah", "esp")),
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 || len(given) > 2 || given[0] != "on" && given[0] != "off" || len(given) == 2 && given[1] != "ah" && given[1] != "esp" {
				return inputError(fmt.Errorf("expected on or off, and ah, esp or nothing; usage: %s", cmd.UseLine()))
			}
			return nil
		},
	}, func(c *control.Client, _ *cobra.Command, given []string) error {
		on := given[0] == "on"
		switch {
		case len(given) == 1:
			return c.Switch(control.Switches{Active: &on})
		case given[1] == "ah":
			return c.Switch(control.Switches{AH: &on})
		}
		return c.Switch(control.Switches{ESP: &on})
	})
}

func newCapabilities() *cobra.Command {
	o := asked{}
	return o.shows(&cobra.Command{
		Use:   "capabilities",
		Short: "Show what the NIC of a running appliance can do, and what is on",
		Args:  args(0),
	}, func(c *control.Client, _ *cobra.Command, _ []string) (document, error) { return c.Capabilities() })
}

func newCounters() *cobra.Command {
	o, name := asked{}, ""
	cmd := o.shows(&cobra.Command{
		Use:   "counters [--sa NAME]",
		Short: "Show what a running appliance has counted",
		Long: `counters shows all counters that are not 0, or those of one SA. --json has the
zeros too, and for each counter its unit and a sentence.`,
		Args: args(0),
	}, func(c *control.Client, _ *cobra.Command, _ []string) (document, error) {
		all, err := c.Counters(name)
		return control.Counters{Counters: all}, err
	})
	cmd.Flags().StringVar(&name, "sa", "", "only the SA of this `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("sa", o.completeFlagSA) // an error would say that there is no such flag
	return cmd
}
