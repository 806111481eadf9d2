package cli

import (
	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/internal/review"
)

// reviewFlags are the flags of replay, show and explain.
type reviewFlags struct{ review.Options }

// open takes the capture's name and the streams.
func (o *reviewFlags) open(cmd *cobra.Command, given []string) {
	o.In, o.Stdin, o.Stdout, o.Stderr = given[0], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
}

func newReplay() *cobra.Command {
	o := reviewFlags{}
	cmd := &cobra.Command{
		Use:   "replay [-c FILE | -k FILE] IN.pcap",
		Short: "Say what happened to each frame of a capture, and why",
		Long: `replay passes every frame of a capture through the appliance, without a TAP and
without privileges. The SAs come from a configuration (-c), or from what another
tool knows (-k): the text of ip xfrm state, a Wireshark esp_sa table, the log of
strongSwan's charon with filelog { chd = 4 }, or a configuration. IN or one of
these files may be - for standard input. Without -c and -k the capture's own SAs
are used: -o FILE --with-keys writes such a capture, with the frames as they
came. It needs no other file; give it to nobody who must not have the keys.

A frame's verdict is "good" if every portion checked is good; "good, both" if
those are a tunnel and a transport portion; "FAILED" if a check failed; "left
alone" if nothing was checked; "not judged" if the capture lacks the end of the
frame, so that it cannot be checked. After it come the frame's number, its time
in UTC and its addresses. "replayed" is a frame that a window of the SA's size
refuses, "late" one whose number is new but not the highest; both are for the
transport to judge, and the verdict stays.

At the end comes the account of each SA, and of headers that no SA matches:
frames good, failed and left alone; numbers lost, doubled and late; beneath them
the smallest window that would have lost nothing, and which SA followed. It goes
to standard error, with --summary-only to standard output.

--sa, --spi and --host choose the frames that count: others appear nowhere.
--only chooses which of these are printed and written; the account has them all.
For a filter in tcpdump's language, pipe in tcpdump -r IN -w - EXPRESSION.

--expect all-good demands that every frame with AH or ESP is good, and that
there is one. --expect FILE demands what FILE says: the JSON of --summary-only
--json, or a part of it. With exit code 4 something was different, and the error
says what; without --expect, 0 means that the capture was read to its end,
whatever the verdicts.

Interrupted, replay sums up what it has read; where it reads a pipe, whose
writer gets Ctrl-C as well, at the second time.`,
		Example: `  ip xfrm state | tapsec replay -k - trace.pcap
  tapsec replay -c site.yaml trace.pcap --only failed,not-judged
  tapsec replay -c site.yaml trace.pcap --summary-only --expect all-good
  tapsec replay -c site.yaml trace.pcap -o annotated.pcapng
  tcpdump -U -i eth0 -w - | tapsec replay -c site.yaml --json -
  tapsec replay -c site.yaml -o - trace.pcap | wireshark -k -i -`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.open(cmd, given)
			return review.Replay(o.Options)
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.TextVar(&o.Form, "form", configs.Form(""), "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off (default: the configuration's)")
	f.TextVar(&o.Annotate, "annotate", configs.Annotate(""), "`WHAT` follows each written frame: trailer, the verdict, or none (default: the configuration's)")
	return cmd
}

// flags are those of replay that show does not have, and those that both have.
func (o *reviewFlags) flags(cmd *cobra.Command) {
	o.sources(cmd)
	o.carriers(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.Out, "output", "o", "", "write the capture, with the frames as delivered, to this pcapng `FILE`; - is standard output")
	f.BoolVar(&o.WithKeys, "with-keys", false, "put the SAs into the file of -o, keys included, and leave the frames as they came")
	o.selection(cmd)
}

// sources are the flags that say where the SAs come from.
func (o *reviewFlags) sources(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.Config, "config", "c", "", "configuration `FILE` with the SAs")
	f.StringArrayVarP(&o.Keys, "keys", "k", nil, "`FILE` with SAs in another tool's form; may be given several times")
}

// carriers is the flag of those that judge.
func (o *reviewFlags) carriers(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.Carriers, "carriers", false, "take IPsec out of what carries it past a NIC, for good: PPPoE, MPLS, LLC, a third VLAN tag, IP in IP, GRE, ERSPAN, VXLAN, Geneve, GTP-U")
}

// selection are the flags that say what is reported, and of which frames.
func (o *reviewFlags) selection(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.JSON, "json", false, "print one JSON object for each frame and nothing else, or one for the sum (docs/json.md)")
	f.BoolVar(&o.SummaryOnly, "summary-only", false, "print the account of the SAs and nothing of each frame")
	filterFlags(cmd, &o.Only, &o.SAs, &o.SPIs, &o.Hosts)
	f.StringVar(&o.Expect, "expect", "", "end with exit code 4 unless everything is as `WHAT` says: all-good, or a file")
	f.StringVar(&o.Report, "report", "", "write a page of what happened, for a browser, to this HTML `FILE`")
	f.StringVar(&o.Color, "color", "auto", "colour of the verdicts `WHEN`: auto (on a terminal, without NO_COLOR), always or never")
}
