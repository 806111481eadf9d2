package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/internal/wrap"
)

func newEvents() *cobra.Command {
	o, follow, asJSON, last := asked{}, false, false, 0
	cmd := o.does(&cobra.Command{
		Use:   "events [--follow]",
		Short: "Show what has happened to a running appliance and its SAs",
		Long: `events shows the last events of a tapsec that runs with --control PATH: SAs that
came, went, failed for the first time or expired, storms of failures, interfaces
that went down. With --follow it continues until it is interrupted or that
program ends. A reader that is too slow loses events, and is told how many; the
appliance waits for nobody. --json prints an object on each line. docs/events.md
lists all events.`,
		Example: `  tapsec events --follow
  tapsec events --follow --last 0 --json | jq 'select(.event == "sa-failed")'`,
		Args: args(0),
		PreRunE: func(*cobra.Command, []string) error { // before anybody is asked
			if last < 0 || last > event.Kept {
				return inputError(fmt.Errorf("--last: expected 0 to %d, found %d", event.Kept, last))
			}
			return nil
		},
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		if !follow {
			events, err := c.Events(last)
			for i := range events {
				printEvent(out, asJSON, &events[i])
			}
			return err
		}
		return untilStopped(cmd, lastWords, func(ctx context.Context) error {
			for e, err := range c.Follow(ctx, last) {
				if err != nil {
					return err
				}
				if err := printEvent(out, asJSON, &e); err != nil {
					return err
				}
			}
			return nil
		})
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON and nothing else")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "continue with new events")
	cmd.Flags().IntVar(&last, "last", 100, "begin with the last `NUMBER` of events")
	return cmd
}

// printEvent prints an event as a line, broken to fit a terminal.
func printEvent(out io.Writer, asJSON bool, e *control.Event) error {
	if asJSON {
		return json.NewEncoder(out).Encode(e)
	}
	_, err := fmt.Fprintln(out, wrap.Text(event.Line(e), len("15:04:05.000 "), wrap.Width))
	return err
}
