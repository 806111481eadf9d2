package cli

import (
	"github.com/spf13/cobra"

	"tapsec/internal/review"
)

func newShow() *cobra.Command {
	o := reviewFlags{review.Options{Shown: true}}
	cmd := &cobra.Command{
		Use:   "show CAPTURE",
		Short: "Say what the NIC wrote after each frame of a capture",
		Long: `show reads a capture of frames that a NIC has annotated: one of the host
interface, or the file of replay -o. It reports what their trailers say in the
form in which replay reports what it finds, and judges nothing itself. Frames
without a trailer are counted and left out. CAPTURE may be - for standard input.

A trailer names SPIs; -c or -k gives SAs their names, and replay windows.`,
		Example: `  tcpdump -U -i host0 -w - | tapsec show -
  tapsec show -k sas.txt host0.pcap --only failed
  tapsec show host0.pcap --summary-only --expect all-good`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.open(cmd, given)
			return review.Replay(o.Options)
		},
	}
	o.sources(cmd)
	o.selection(cmd)
	return cmd
}
