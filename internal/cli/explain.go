package cli

import (
	"github.com/spf13/cobra"

	"tapsec/internal/review"
)

func newExplain() *cobra.Command {
	o := reviewFlags{}
	cmd := &cobra.Command{
		Use:   "explain [-c FILE | -k FILE] CAPTURE[:N]",
		Short: "Say of one frame what each stage found, and which bytes decided",
		Long: `explain passes a capture through the appliance, as replay does, and tells all
there is to tell about frame N: the bytes that decided, what each stage looked
up, found and compared, the ICV found and the one computed, the row of the
contract and the clause of the RFC, near misses, the SA's frames around it, and
what others would call it. Without N it is the first frame that failed, else the
first with IPsec that was left alone. CAPTURE may be - for standard input.

Offsets are those of the frame, from 0. No key is shown.`,
		Example: `  tapsec explain -k sas.txt trace.pcap
  tapsec explain -c site.yaml trace.pcap:17
  tapsec explain -c site.yaml --json trace.pcap:17 | jq .stages`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.open(cmd, given)
			return review.Explain(o.Options, given[0])
		},
	}
	o.sources(cmd)
	o.carriers(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.JSON, "json", false, "print one JSON object (docs/json.md)")
	f.StringVar(&o.Color, "color", "auto", "colour `WHEN`: auto (on a terminal, without NO_COLOR), always or never")
	return cmd
}
