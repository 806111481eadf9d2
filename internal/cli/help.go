package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/docs/reasons"
	"tapsec/sa"
)

// helpOnReasons makes the help command know the names of reasons, too.
func helpOnReasons(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("cli: " + err.Error())
	}
	help.Use = "help [COMMAND | REASON]"
	help.Long = "Help on a command, or on a reason that logs, replay and explain name: its cause,\nhow to confirm it, and what to do."
	ofCommand := help.Run
	help.RunE = func(cmd *cobra.Command, given []string) error {
		if len(given) == 1 {
			if text := reasons.About(given[0]); text != "" {
				_, err := fmt.Fprint(cmd.OutOrStdout(), strings.ReplaceAll(text, "*", ""))
				return err
			}
		}
		at, rest, err := root.Find(given)
		if err != nil && len(given) == 1 {
			return inputError(fmt.Errorf("expected a command or a reason, found %s; tapsec help lists the commands, docs/reasons.md the reasons", sa.Quote(given[0])))
		} else if err != nil || len(rest) > 0 {
			return unknownCommand(at, append(rest, given...)[0])
		}
		ofCommand(cmd, given)
		return nil
	}
}
