//go:build linux

package cli

import (
	"github.com/spf13/cobra"

	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
)

func newRig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rig",
		Short: "Two hosts, the NIC and the transport in a throw-away network",
		Long: `rig puts up two hosts in namespaces of their own, joined by a wire. What a sends
is sealed; before b stand the NIC and the transport. Nothing touches the
machine's own network. Root is not needed if the kernel grants user namespaces
and /dev/net/tun may be opened. The rig's files are in $XDG_RUNTIME_DIR, for
root in /run, until it is taken down.`,
		Example: `  tapsec rig up
  tapsec rig exec a -- ping -c3 10.77.0.2
  tapsec rig exec nic -- ip -s link show wire0
  tapsec rig down`,
	}
	cmd.AddCommand(newRigUp(), newRigExec(), newRigStatus(), newRigDown(), newRigSupervise(), newRigEnter())
	return cmd
}

// oneRig lets a command have the name of a rig as its argument, or none.
func oneRig(cmd *cobra.Command, given []string) error {
	if err := args(min(len(given), 1))(cmd, given); err != nil {
		return err
	}
	return inputError(rig.CheckName(rigName(given)))
}

// rigName is the argument of a command that may have one.
func rigName(given []string) string {
	if len(given) == 0 {
		return hosts.Default
	}
	return given[0]
}

func newRigDown() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME]",
		Short: "Take the rig down and leave nothing behind",
		Long: `down ends every process in the rig, also those that rig exec started: it asks
them first, and kills them after a second. A rig that died is cleared away.`,
		Args:              oneRig,
		ValidArgsFunction: completeRigs,
		RunE:              func(_ *cobra.Command, given []string) error { return rig.TakeDown(rigName(given)) },
	}
}

func completeRigs(_ *cobra.Command, given []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(given) == 0 {
		names = rig.Names()
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
