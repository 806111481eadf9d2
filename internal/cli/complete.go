package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/lab/conformance"
	"tapsec/sa"
)

// fixed completes from a fixed list.
func fixed(names ...cobra.Completion) cobra.CompletionFunc {
	return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
}

// completeFlags completes the flags that several commands have.
func completeFlags(cmd *cobra.Command) {
	// Errors would say that there is no such flag.
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	_ = cmd.MarkFlagFilename("state", "json")
	for flag, complete := range map[string]cobra.CompletionFunc{
		"form": fixed(string(configs.InPlace), string(configs.Decap)), "annotate": fixed(string(configs.Trailer), string(configs.None)),
		"log-format": fixed("text", "json"), "log-level": fixed("debug", "info", "warn", "error"),
		"engine": fixed("auto", "ring", "plain", "direct", "xdp"), "steer": fixed("auto", "spi", "flow"),
		"wire-netns": completeNamespaces, "host-netns": completeNamespaces, "unmerged": fixed("tso", "uso", "gro", "wire", "all", "none"), "stack-netns": completeNamespaces, "mirror-xfrm": completeNamespaces,
		"profile": fixed(sa.ProfileNames()...),
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, complete)
	}
}

// completeSA completes the name of an SA of the running appliance, for a command that takes
// one. An appliance that does not answer has none.
func (o *asked) completeSA(_ *cobra.Command, given []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.completeSAs()
}

// completeFlagSA does the same for a flag.
func (o *asked) completeFlagSA(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return o.completeSAs()
}

func (o *asked) completeSAs() (names []cobra.Completion, _ cobra.ShellCompDirective) {
	const most = 1000 // more are no help
	if c, err := control.Dial(o.socket); err == nil {
		page, _ := c.List(0, most)
		for _, s := range page.SAs {
			names = append(names, cobra.CompletionWithDesc(s.Name, s.Protocol.String()+" "+s.SPI.String()))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeSetups completes the last of several names of conformance's setups.
func completeSetups(_ *cobra.Command, _ []string, typed string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	for _, setup := range conformance.Setups() {
		if !slices.Contains(strings.Split(before, ","), setup.Name) {
			names = append(names, before+setup.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
