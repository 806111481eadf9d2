package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/internal/console"
	"tapsec/internal/explain"
	"tapsec/internal/files"
)

func newExplain() *cobra.Command {
	o := replayOptions{}
	cmd := &cobra.Command{
		Use:   "explain [-c FILE | -k FILE] CAPTURE[:N]",
		Short: "Say of one frame what each stage found, and which bytes decided",
		Long: `explain leads a capture through the appliance, as replay does, and tells all
that there is to tell of frame N: the bytes that decided, what each stage looked
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
			o.streams = streamsOf(cmd)
			return o.explain(given[0])
		},
	}
	o.sources(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print one JSON object (docs/json.md)")
	f.StringVar(&o.color, "color", "auto", "colour `WHEN`: auto (on a terminal, without NO_COLOR), always or never")
	completeFlags(cmd)
	return cmd
}

// explain tells of one frame.
func (o *replayOptions) explain(which string) error {
	var number int
	o.in, number = explain.Which(which)
	colour, err := console.Colour(o.color, o.stdout)
	if err != nil {
		return inputError(err)
	}
	c, err := o.load()
	if err != nil {
		return err
	}
	in, err := files.Open(o.in, o.stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	frames, err := capture.NewReader(in)
	if err == nil {
		c, _, err = o.secrets(c, frames)
	}
	if err != nil {
		return inputError(err)
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return inputError(err)
	}
	f, err := explain.Capture(nic, c, frames, number)
	if err != nil {
		return inputError(fmt.Errorf("%s: %w", files.Name(o.in), err))
	}
	if o.json {
		text, err := json.MarshalIndent(f.Document(), "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.stdout, "%s\n", text)
		return err
	}
	return f.Text(o.stdout, files.Name(o.in), colour)
}
