//go:build linux

package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tapsec/control"
	"tapsec/internal/console"
	"tapsec/internal/top"
)

func newTop() *cobra.Command {
	o, when, colour := asked{}, "", false
	cmd := o.does(&cobra.Command{
		Use:   "top",
		Short: "Watch a running appliance in a terminal",
		Long: `top shows once a second what a tapsec that runs with --control PATH moves, how
it judges, and its SAs: first those that fail, in red, then those with the most
traffic, with their windows if the transport runs. e explains why frames of the
chosen SA are dropped; q ends it.`,
		Args: args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
			return inputError(errors.New("top needs a terminal on standard input and output; tapsec counters prints the same once"))
		}
		before, err := term.GetState(int(os.Stdin.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(os.Stdin.Fd()), before) }() // where nobody reads the terminal, Run cannot
		return untilStopped(cmd, time.Second, func(ctx context.Context) error {
			return top.Run(ctx, c, o.socket, colour)
		})
	})
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		colour, err = console.Colour(when, cmd.OutOrStdout())
		return inputError(err)
	}
	cmd.Flags().StringVar(&when, "color", "auto", "colour `WHEN`: auto (without NO_COLOR), always or never")
	return cmd
}
