//go:build linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tapsec/internal/daemon"
)

func newSend() *cobra.Command {
	o := runFlags{daemon.Settings{Attach: true}}
	cmd := &cobra.Command{
		Use:   "send -c FILE --stack STACK --out INTERFACE",
		Short: "Be the peer: seal what a plain stack sends",
		Long: `send is the other side of a test: what the kernel's stack sends on the TAP
--stack is sealed with the configuration's SAs to addresses other than its own,
and leaves through the interface --out, for instance the wire TAP of a tapsec
run. Answers in clear go to the stack as they are; if the configuration has SAs
to its own addresses, a NIC and a transport of its own open the rest.

So two programs with the same file, each with the addresses of its side as
local, protect both directions. It is a test's sender, not an offloaded one.`,
		Example: `  tapsec run -c rig.yaml --transport stack0 --stack-netns b &
  tapsec send -c rig.yaml --stack stack0 --stack-netns a --out wire0`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Wire == "" || o.Stack == "" {
				return inputError(errors.New("give the stack's TAP with --stack, and the interface towards the peer with --out"))
			}
			return o.run(cmd)
		},
	}
	o.commonFlags(cmd)
	o.stackFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.Stack, "stack", "", "`NAME` of the stack's TAP")
	f.StringVar(&o.Wire, "out", "", "`INTERFACE` towards the peer")
	f.StringVar(&o.WireNetns, "out-netns", "", "network namespace `NAME` of --out")
	return cmd
}
