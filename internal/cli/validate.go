package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tapsec/configs"
)

func newValidate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration and name every mistake",
		Args:  args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			return validate(cmd.OutOrStdout(), given[0])
		},
	}
}

func validate(out io.Writer, path string) error {
	c, err := configs.Load(path)
	if err != nil {
		return inputError(err)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	if err := c.Live(); err != nil {
		fmt.Fprintf(out, "warning: good for captures only: %v\n", err)
	}
	fmt.Fprintf(out, "%s: good. Profile %s, %s offloaded in %s, %d left to the transport.\n",
		path, c.Profile.Name, count(len(c.SAs)-len(c.Unoffloaded()), "SA"), count(len(c.Bundles()), "bundle"), len(c.Unoffloaded()))
	return nil
}
