//go:build linux

package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/hosts"
)

func newRigUp() *cobra.Command {
	o, profile := hosts.Options{}, ""
	cmd := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Put a rig up in the background; return when traffic flows",
		Long: `up makes the hosts a and b and the NIC's own namespace, starts the programs in
the background, and says how to enter the hosts. Several rigs may be up, each
with a name.

Without -c the configuration is configs/rig.yaml with fresh keys: IPv4 in
transport mode inside a tunnel, IPv6 in transport mode. It is in the rig's
directory; change it and send SIGHUP, as up tells you.`,
		Args: oneRig,
		RunE: func(cmd *cobra.Command, given []string) error {
			o.Name = rigName(given)
			if err := o.Check(profile); err != nil {
				return inputError(err)
			}
			return untilStopped(cmd, lastWords, func(ctx context.Context) error {
				r, err := hosts.Up(ctx, o)
				if err != nil {
					return err
				}
				return hosts.WriteGuide(cmd.OutOrStdout(), r, invocation())
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Config, "config", "c", "", "configuration `FILE` for both hosts")
	f.StringVar(&profile, "profile", "", "`NAME` of what the NIC can do (default full)")
	f.BoolVar(&o.Split, "split", false, "NIC and transport as two programs, host0 between them")
	unmergedFlag(cmd, &o.Unmerged)
	f.BoolVar(&o.ClearAnswers, "clear-answers", false, "protect only what a sends")
	return cmd
}

// invocation is how the user called this program, so that the commands shown can
// be copied.
func invocation() string {
	self := os.Args[0]
	if strings.Contains(self, "/go-build") { // made by go run, and gone by then
		self = "go run ."
	}
	if os.Getenv("SUDO_COMMAND") != "" {
		self = "sudo " + self
	}
	return self
}
