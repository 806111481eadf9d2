package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/docs/reasons"
	"tapsec/internal/near"
	"tapsec/internal/wrap"
	"tapsec/sa"
)

// helpOnReasons makes the help command know reasons and statuses, too.
func helpOnReasons(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("cli: " + err.Error())
	}
	help.Use = "help [COMMAND | REASON]"
	help.Long = "Help on a command, or on a reason or status that logs, replay and explain name:\nits cause, how to confirm it, and what to do."
	commands, ofCommand := help.ValidArgsFunction, help.Run
	help.ValidArgsFunction = func(cmd *cobra.Command, given []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, directive := commands(cmd, given, typed)
		for _, reason := range reasons.Names() {
			if len(given) == 0 && typed != "" && strings.HasPrefix(reason, typed) {
				names = append(names, reason)
			}
		}
		return names, directive
	}
	help.RunE = func(cmd *cobra.Command, given []string) error {
		if len(given) == 1 {
			if text := reasons.About(given[0]); text != "" {
				_, err := fmt.Fprint(cmd.OutOrStdout(), wrap.Message(strings.ReplaceAll(text, "*", ""), true))
				return err
			}
		}
		at, rest, err := root.Find(given)
		switch {
		case err == nil && len(rest) == 0:
		case len(given) == 1:
			return unknownTopic(root, given[0])
		default:
			return unknownCommand(at, append(rest, given...)[0])
		}
		ofCommand(cmd, given)
		return nil
	}
}

// unknownTopic is the error for a word that help knows nothing about.
func unknownTopic(root *cobra.Command, word string) error {
	hint := "tapsec help lists the commands, docs/reasons.md the reasons"
	if name := near.Name(word, append(commandNames(root), reasons.Names()...)); name != "" {
		hint = "did you mean " + name + "?"
	}
	return inputError(fmt.Errorf("expected a command or a reason, found %s; %s", sa.Quote(word), hint))
}
