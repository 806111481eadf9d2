//go:build linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/internal/daemon"
)

func newTransport() *cobra.Command {
	o := runFlags{daemon.Settings{Attach: true, Options: appliance.Options{NoNIC: true}}}
	asTAP := false
	cmd := &cobra.Command{
		Use:   "transport -c FILE --in INTERFACE --out STACK",
		Short: "Be the transport behind a NIC: deliver clean frames to a stack",
		Long: `transport reads annotated frames from an interface, as tapsec run leaves them on
its host TAP, and gives a plain stack what is clean: it checks sequence numbers
and policy, and does in software what the NIC left. The stack is the kernel's,
on the TAP --out, which transport makes or takes as it is. What the stack sends
is sealed if the configuration has SAs to addresses other than its own, and goes
back to the interface.

The interface must have no addresses of its own, or the kernel's stack there
answers too. Each dropped frame has a log line, at a bounded rate.`,
		Example: `  tapsec run -c configs/example.yaml &
  tapsec transport -c configs/example.yaml --in host0 --out stack0`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Wire == "" || o.Stack == "" {
				return inputError(errors.New("give the interface with annotated frames with --in, and the stack's TAP with --out"))
			}
			o.Attach = !asTAP
			return o.run(cmd)
		},
	}
	o.commonFlags(cmd)
	o.stackFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.Wire, "in", "", "`INTERFACE` on which annotated frames arrive")
	f.BoolVar(&asTAP, "in-tap", false, "--in is a TAP to open: the frames that its kernel's side sends are annotated")
	f.StringVar(&o.Stack, "out", "", "`NAME` of the stack's TAP")
	f.StringVar(&o.WireNetns, "in-netns", "", "network namespace `NAME` of --in")
	f.StringVar(&o.NIC, "nic", "", "control socket of the NIC at this `PATH`, to tell it of ESN and deletions")
	return cmd
}
