package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/docs/reasons"
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
	help.Run = func(cmd *cobra.Command, given []string) {
		text := ""
		if len(given) == 1 {
			text = reasons.About(given[0])
		}
		if text == "" {
			ofCommand(cmd, given)
			return
		}
		fmt.Fprint(cmd.OutOrStdout(), strings.ReplaceAll(text, "*", ""))
	}
}
