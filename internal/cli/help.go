package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/docs/reasons"
	"tapsec/internal/outbound"
	"tapsec/status"
	"tapsec/transport"
)

// helpOnReasons has the help command know the names of reasons, too.
func helpOnReasons(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("cli: " + err.Error())
	}
	help.Use = "help [COMMAND | REASON]"
	help.Long = "Help about a command, or about a reason that logs, replay and explain name: its\ncause, how to confirm it, and what to do."
	ofCommand := help.Run
	help.Run = func(cmd *cobra.Command, given []string) {
		text := ""
		if len(given) == 1 {
			text = aboutReason(given[0])
		}
		if text == "" {
			ofCommand(cmd, given)
			return
		}
		fmt.Fprint(cmd.OutOrStdout(), strings.ReplaceAll(text, "*", ""))
	}
}

// aboutReason is what there is to say of a reason, or of all with that short name; empty:
// there is none.
func aboutReason(name string) string {
	var pages []string
	for qualified, sentence := range sentences() {
		if _, short, _ := strings.Cut(qualified, "/"); name == qualified || name == short {
			pages = append(pages, fmt.Sprintf("%s: %s\n\n%s", qualified, sentence, reasons.Page(qualified)))
		}
	}
	slices.Sort(pages)
	return strings.Join(pages, "\n")
}

// sentences are those of all reasons, by qualified name.
func sentences() map[string]string {
	all := map[string]string{}
	for _, r := range status.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	for _, r := range transport.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	for _, r := range outbound.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	return all
}
