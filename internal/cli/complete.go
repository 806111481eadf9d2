package cli

import (
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/inspect"
	"tapsec/sa"
)

// fixed completes from a fixed list.
func fixed(names ...cobra.Completion) cobra.CompletionFunc {
	return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
}

// several completes the last of several names of a list, with commas between them.
func several(list ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		for _, name := range list {
			if !slices.Contains(strings.Split(before, ","), name) {
				names = append(names, before+name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// plainUsages takes the quotes of values out of the flags' descriptions, which shells show as they are.
func plainUsages(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) })
	for _, beneath := range cmd.Commands() {
		plainUsages(beneath)
	}
}

// byFlag completes flags by their names and what their help calls the value.
var byFlag = map[string]cobra.CompletionFunc{
	"annotate WHAT":   fixed(string(configs.Trailer), string(configs.None)),
	"color WHEN":      fixed("auto", "always", "never"),
	"engine HOW":      fixed("auto", "ring", "plain", "direct", "xdp"),
	"expect WHAT":     cobra.FixedCompletions([]cobra.Completion{"all-good"}, cobra.ShellCompDirectiveDefault),
	"form FORM":       fixed(string(configs.InPlace), string(configs.Decap)),
	"log-format FORM": fixed("text", "json"),
	"log-level LEVEL": fixed("debug", "info", "warn", "error"),
	"only KINDS":      several(inspect.Kinds()...),
	"profile NAME":    fixed(sa.ProfileNames()...),
	"steer BY":        fixed("auto", "spi", "flow"),
	"to FORM":         fixed("yaml", "xfrm", "esp_sa"),
	"unmerged WHAT":   several("tso", "uso", "gro", "wire", "all", "none"),

	"in-netns NAME": completeNamespaces, "out-netns NAME": completeNamespaces, "wire-netns NAME": completeNamespaces,
	"host-netns NAME": completeNamespaces, "stack-netns NAME": completeNamespaces, "netns NAME": completeNamespaces,
	"mirror-xfrm [NETNS]": completeNamespaces,

	"wire NAME": completeInterfaces, "host NAME": completeInterfaces, "transport NAME": completeInterfaces, "stack NAME": completeInterfaces,
	"out NAME": completeInterfaces, "in INTERFACE": completeInterfaces, "out INTERFACE": completeInterfaces,

	"config FILE": endings("yaml", "yml", "json"),
	"state FILE":  endings("json"),
	"write FILE":  endings("pcapng"),
	"report FILE": endings("html"),
}

// byValue completes all others by that alone. What is not here has nothing to offer.
var byValue = map[string]cobra.CompletionFunc{
	"FILE": cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault), "PATH": cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	"FOLDER": cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
}

// endings completes files that end in these.
func endings(list ...cobra.Completion) cobra.CompletionFunc {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveFilterFileExt)
}

// completeAll completes flags and arguments of a command and of all beneath it, but what they complete
// themselves.
func completeAll(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		what, _ := pflag.UnquoteUsage(f)
		complete := byFlag[f.Name+" "+what]
		if complete == nil {
			complete = byValue[what]
		}
		if _, done := cmd.GetFlagCompletionFunc(f.Name); done || f.Value.Type() == "bool" && what == "" {
			return
		}
		if complete == nil {
			complete = cobra.NoFileCompletions
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // an error would say that there is no such flag
	})
	if cmd.Args != nil && !cmd.HasSubCommands() && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = completeFile
	}
	for _, sub := range cmd.Commands() {
		completeAll(sub)
	}
}

// first completes the first arguments, each by a function of its own, and nothing behind them.
func first(each ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(given) >= len(each) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return each[len(given)](cmd, given, typed)
	}
}

// completeFile completes a file, where the command takes one more argument.
func completeFile(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if cmd.Args(cmd, append(slices.Clone(given), "x")) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeInterfaces completes the name of an interface of this machine.
func completeInterfaces(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	all, _ := net.Interfaces() // where they cannot be seen there is nothing to offer
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
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
