package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/control"
	"tapsec/internal/console"
	"tapsec/internal/dump"
	"tapsec/internal/explain"
	"tapsec/internal/files"
	"tapsec/internal/inspect"
)

func newCapture() *cobra.Command {
	o, frames, to := asked{flag: "from"}, control.Frames{}, dump.Options{}
	cmd := o.does(&cobra.Command{
		Use:   "capture --from SOCKET -w FILE",
		Short: "Capture the frames of a running NIC, before and after it",
		Long: `capture takes frames from a tapsec that runs with --control SOCKET and has the
NIC: each as it came from the wire and, beneath, as it is delivered, two packets
with the same packet number (frame.packet_id in Wireshark), with the verdict as
their comment, as replay -o writes it. What the NIC opened is open in it. Keys
are never in it.

It continues until it is interrupted, has --count frames, or the NIC ends, and
then completes the file, with exit code 0. The NIC waits for nobody: a slow
reader loses frames. It says how many at the end, and so do the file
(frame.drop_count, and its statistics) and tapsec counters.

--ring keeps the latest of several files, named as dumpcap names them:
FILE_00001_20260102030405.pcapng. With --headers what was opened is left out:
the delivered frame is cut where that begins. What was never sealed stays.

--only, --sa, --spi and --host are as for replay; windows begin with the
capture. For a filter in tcpdump's language, pipe it into
tcpdump -r - -w - EXPRESSION.`,
		Example: `  tapsec capture --from /run/tapsec.sock -w trace.pcapng
  tapsec capture --from nic.sock -w - | wireshark -k -i -
  tapsec capture --from nic.sock --only failed -w failed.pcapng
  tapsec capture --from nic.sock -w trace.pcapng --ring 5 --size 100M`,
		Args: args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		return untilStopped(cmd, lastWords, func(ctx context.Context) error {
			in, err := c.Capture(ctx, frames)
			if err != nil {
				return err
			}
			sum, err := dump.Copy(in, to)
			err = errors.Join(err, in.Close())
			fmt.Fprintf(cmd.ErrOrStderr(), "%d frames captured, %d lost\n", sum.Frames, sum.Lost)
			return err
		})
	})
	o.watchFlags(cmd, &frames)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { // before anybody is asked
		to.Out = cmd.OutOrStdout()
		return inputError(cmp.Or(captureTo(&to), checkFrames(&frames)))
	}
	f := cmd.Flags()
	f.StringVarP(&to.Path, "write", "w", "", "write pcapng to this `FILE`; - is standard output")
	f.IntVar(&to.Keep, "ring", 0, "keep the latest `NUMBER` of files")
	f.TextVar(&to.Size, "size", dump.Size(0), "begin another file after this many `BYTES`, such as 100M (default with --ring: 100M)")
	f.IntVar(&frames.Snap, "snaplen", 0, "take this many `BYTES` of each frame")
	f.BoolVar(&frames.NoOpened, "headers", false, "leave out what was opened in the frames")
	return cmd
}

// captureTo checks where a capture goes, and fills in defaults.
func captureTo(to *dump.Options) error {
	const usual = 100 << 20
	switch {
	case to.Path == "":
		return errors.New("say where the capture goes: -w FILE, or -w - for a pipe, such as to wireshark -k -i -")
	case to.Keep < 0:
		return fmt.Errorf("--ring: expected a number of files, found %d", to.Keep)
	case to.Path == "-" && (to.Keep > 0 || to.Size > 0):
		return errors.New("--ring and --size are for files, and -w - is a pipe")
	case to.Path == "-" && console.IsTerminal(to.Out):
		return errors.New("-w - would write pcapng to a terminal: add | wireshark -k -i - or | tshark -r -")
	case to.Keep > 0 && to.Size == 0:
		to.Size = usual
	}
	if to.Path == "-" || to.Size > 0 { // or under other names
		return nil
	}
	return files.MayCreate(to.Path)
}

func newTrace() *cobra.Command {
	o, frames, asJSON, color, colour := asked{flag: "from"}, control.Frames{}, false, "", false
	cmd := o.does(&cobra.Command{
		Use:   "trace --from SOCKET [--count 20]",
		Short: "Say of the frames of a running NIC what each stage finds",
		Long: `trace explains frames while a tapsec that runs with --control SOCKET and has the
NIC judges them: what explain says of a captured frame, in short. The NIC itself
explains them, beside its work, so no keys leave it. It continues until it is
interrupted, has explained --count frames, or the NIC ends. Frames that come
too fast to be explained are left out, and counted.

A frame's number is that on its queue. --json prints an object on each line,
with all that explain --json says (docs/json.md).`,
		Example: `  tapsec trace --from /run/tapsec.sock --count 20
  tapsec trace --from nic.sock --only failed --json | jq .reason`,
		Args: args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		return untilStopped(cmd, lastWords, func(ctx context.Context) error {
			for line, err := range c.Trace(ctx, frames) {
				if err == nil {
					err = printTraced(out, line, asJSON, colour)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	o.watchFlags(cmd, &frames)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		colour, err = console.Colour(color, cmd.OutOrStdout())
		return inputError(cmp.Or(err, checkFrames(&frames)))
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON and nothing else")
	f.StringVar(&color, "color", "auto", "colour of the verdicts `WHEN`: auto (on a terminal, without NO_COLOR), always or never")
	return cmd
}

func printTraced(out io.Writer, line []byte, asJSON, colour bool) error {
	if asJSON {
		_, err := out.Write(line)
		return err
	}
	var one explain.Traced
	if err := json.Unmarshal(line, &one); err != nil {
		return fmt.Errorf("the trace is not what this program expects (%w): is the NIC of the same version?", err)
	}
	return one.Text(out, colour)
}

// checkFrames finds in the flags what the NIC would refuse.
func checkFrames(frames *control.Frames) error {
	if frames.Snap < 0 {
		return fmt.Errorf("--snaplen: expected a number of bytes, found %d", frames.Snap)
	}
	_, err := inspect.ParseFilter(frames.Only, frames.SAs, frames.SPIs, frames.Hosts)
	return err
}

// watchFlags choose frames of a running NIC.
func (o *asked) watchFlags(cmd *cobra.Command, frames *control.Frames) {
	filterFlags(cmd, &frames.Only, &frames.SAs, &frames.SPIs, &frames.Hosts)
	_ = cmd.RegisterFlagCompletionFunc("sa", o.completeFlagSA)
	cmd.Flags().Uint64Var(&frames.Count, "count", 0, "end after this `NUMBER` of frames (default: never)")
}

// filterFlags choose frames.
func filterFlags(cmd *cobra.Command, only, sas, spis, hosts *[]string) {
	f := cmd.Flags()
	f.StringSliceVar(only, "only", nil, "only these `KINDS` of frames: "+strings.Join(inspect.Kinds(), ","))
	f.StringArrayVar(sas, "sa", nil, "only frames of the SA `NAME`; may be given several times")
	f.StringSliceVar(spis, "spi", nil, "only frames with this `SPI`, or several with commas")
	f.StringSliceVar(hosts, "host", nil, "only frames from or to this `ADDRESS`, outside or in an opened tunnel, or several with commas")
}
