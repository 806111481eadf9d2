package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/rig"
)

const defaultRig = "default"

func newRig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rig",
		Short: "Two hosts, the NIC and the transport in a throw-away network",
		Long: `rig puts two hosts up in namespaces of their own, joined by a wire. What a sends
is sealed; before b stand the NIC and the transport. Nothing of it touches the
machine's own network. Root is not needed where the kernel grants user
namespaces and /dev/net/tun may be opened. Its files are in $XDG_RUNTIME_DIR,
root's in /run, until it is taken down.`,
		Example: `  tapsec rig up
  tapsec rig exec a -- ping -c3 10.77.0.2
  tapsec rig exec nic -- tcpdump -ni wire0
  tapsec rig down`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRigUp(), newRigExec(), newRigStatus(), newRigDown(), newRigSupervise(), newRigEnter())
	return cmd
}

// oneRig lets a command have the name of a rig as its argument, or none.
func oneRig(cmd *cobra.Command, given []string) error {
	return args(min(len(given), 1))(cmd, given)
}

// rigName is the argument of a command that may have one.
func rigName(given []string) string {
	if len(given) == 0 {
		return defaultRig
	}
	return given[0]
}

func newRigDown() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME]",
		Short: "Take the rig down and leave nothing behind",
		Long: `down ends every process in the rig, those that rig exec started too: they are
asked to first, and killed after a second. A rig that died is cleared away.`,
		Args:              oneRig,
		ValidArgsFunction: completeRigs,
		RunE: func(_ *cobra.Command, given []string) error {
			return orWhichRig(rig.TakeDown(rigName(given)))
		},
	}
}

// orWhichRig adds to "is not up" what is.
func orWhichRig(err error) error {
	if !errors.Is(err, rig.ErrDown) {
		return err
	}
	all, _ := rig.All()
	if len(all) == 0 {
		return fmt.Errorf("%w; tapsec rig up puts it up", err)
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	return fmt.Errorf("%w; there is %s", err, strings.Join(names, ", "))
}

func completeRigs(_ *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, err := rig.All()
	if err != nil || len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, r := range all {
		names = append(names, r.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// newRigSupervise is what rig up starts in the background.
func newRigSupervise() *cobra.Command {
	return &cobra.Command{
		Use:    "supervise DIR",
		Hidden: true,
		Args:   args(1),
		RunE:   func(_ *cobra.Command, given []string) error { return rig.Supervise(given[0]) },
	}
}
