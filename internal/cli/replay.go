package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/console"
	"tapsec/internal/files"
	"tapsec/internal/inspect"
	"tapsec/internal/secrets"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	config   string
	keys     []string
	in, out  string
	json     bool
	withKeys bool
	form     configs.Form
	annotate configs.Annotate

	shown       bool // the frames have their verdicts
	summaryOnly bool
	only, spis  []string
	sas, hosts  []string
	color       string
	expect      string
	report      string

	streams
}

func newReplay() *cobra.Command {
	o := replayOptions{}
	cmd := &cobra.Command{
		Use:   "replay [-c FILE | -k FILE] IN.pcap",
		Short: "Say what happened to each frame of a capture, and why",
		Long: `replay leads every frame of a capture through the appliance, without a TAP and
without privileges. The SAs come from a configuration (-c), or from what another
tool knows (-k): the text of ip xfrm state, a Wireshark esp_sa table, the log of
strongSwan's charon with filelog { chd = 4 }, or a configuration. IN and the key
file may be - for standard input. Without both they are those that the capture
carries: -o FILE --with-keys writes one with its frames as they came, which
needs no other file, and which nobody should get who must not have the keys.

A frame's verdict is "good" where every portion checked is; "good, both" where
these are a tunnel and a transport portion; "FAILED" where a check was not
passed; "left alone" where nothing was checked; "not judged" where the capture
lacks the end of a frame, so that nobody can check it. Behind it stand the
frame's number, its time in UTC and its addresses. "replayed" is a frame that a
window of the SA's size refuses, "late" one whose number is new but not the
highest; both are the transport's affair, and the verdict stays.

At the end comes the account of each SA, also of headers that no SA matches:
frames good, failed and left alone; numbers lost and doubled, and those that
came late; beneath them the smallest window that would have lost nothing, and
which SA followed. It goes to standard error, with --summary-only to standard
output.

--sa, --spi and --host choose the frames that count: others appear nowhere.
--only chooses which of these are printed and written; the account has them all.
For a filter in tcpdump's language put tcpdump -r IN -w - EXPRESSION in front.

--expect all-good demands that every frame with AH or ESP is good, and that
there is one. --expect FILE demands what FILE says: the JSON of --summary-only
--json, or a part of it. Exit code 4 says that something was otherwise, and
what; without --expect 0 says that the capture was read to its end, whatever the
verdicts.`,
		Example: `  ip xfrm state | tapsec replay -k - trace.pcap
  tapsec replay -c site.yaml trace.pcap --only failed,not-judged
  tapsec replay -c site.yaml trace.pcap --summary-only --expect all-good
  tapsec replay -c site.yaml trace.pcap -o annotated.pcapng
  tcpdump -U -i eth0 -w - | tapsec replay -c site.yaml --json -
  tapsec replay -c site.yaml -o - trace.pcap | wireshark -k -i -`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.in = given[0]
			o.streams = streamsOf(cmd)
			return replay(o)
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.TextVar(&o.form, "form", configs.Form(""), "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off (default: the configuration's)")
	f.TextVar(&o.annotate, "annotate", configs.Annotate(""), "`WHAT` stands behind each written frame: trailer, the verdict, or none (default: the configuration's)")
	completeFlags(cmd)
	return cmd
}

// flags are those that need no reading.
func (o *replayOptions) flags(cmd *cobra.Command) {
	o.sources(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.out, "output", "o", "", "write the capture anew with the frames as delivered to this pcapng `FILE`; - is standard output")
	f.BoolVar(&o.withKeys, "with-keys", false, "put the SAs into the file of -o, keys included, and leave the frames as they came")
	o.selection(cmd)
}

// sources are the flags that say where the SAs come from.
func (o *replayOptions) sources(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE` with the SAs")
	f.StringArrayVarP(&o.keys, "keys", "k", nil, "`FILE` with SAs in another tool's form; may be given several times")
}

// selection are the flags that say what is told, and of which frames.
func (o *replayOptions) selection(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print one JSON object per frame and nothing else, or one of the sum (docs/json.md)")
	f.BoolVar(&o.summaryOnly, "summary-only", false, "print the account of the SAs and nothing of each frame")
	f.StringSliceVar(&o.only, "only", nil, "print and write only these `KINDS` of frames: "+strings.Join(inspect.Kinds(), ","))
	f.StringArrayVar(&o.sas, "sa", nil, "only frames of the SA `NAME`, or several")
	f.StringSliceVar(&o.spis, "spi", nil, "only frames with this `SPI`, or several")
	f.StringSliceVar(&o.hosts, "host", nil, "only frames from or to this `ADDRESS`, outside or in a tunnel that was opened, or several")
	f.StringVar(&o.expect, "expect", "", "end with exit code 4 unless all is `WHAT`: all-good, or as in a file")
	f.StringVar(&o.report, "report", "", "write a page of what happened, for a browser, to this HTML `FILE`")
	f.StringVar(&o.color, "color", "auto", "colour of the verdicts `WHEN`: auto (on a terminal, without NO_COLOR), always or never")
	fixed := func(flag string, words ...cobra.Completion) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed("only", inspect.Kinds()...)
	fixed("color", "auto", "always", "never")
}

// replay runs a capture through the appliance.
//
//  1. Read the SAs, which may be in the capture, what is expected, and which frames
//     are meant; key a NIC.
//  2. Open the file for the delivered frames.
//  3. Inspect frame by frame, then sum up, and compare.
func replay(o replayOptions) (err error) {
	c, err := o.load()
	if err != nil {
		return err
	}
	interrupted := console.Interrupts(o.in == "-")
	in, err := files.Open(o.in, o.stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	progress := inspect.NewProgress(in)
	frames, err := capture.NewReader(progress)
	if err != nil {
		return inputError(fmt.Errorf("%s: %w", files.Name(o.in), err))
	}
	c, carried, err := o.secrets(c, frames)
	if err != nil {
		return inputError(err)
	}
	warn(o.stderr, c)
	expected, err := inspect.LoadExpectation(o.expect)
	if err != nil {
		return inputError(err)
	}
	page, err := o.reporting()
	if err != nil {
		return err
	}
	inspector, err := o.inspector(c, page)
	if err != nil {
		return inputError(err)
	}
	file, err := o.output(frames, c.Host.Annotate == configs.None, carried)
	if err != nil {
		return err
	}
	end := o.progress(progress, inspector)
	sum, err := o.capture(frames, inspector, file, interrupted, end)
	err = errors.Join(err, page.write(&o, c, sum))
	if err != nil || o.expect == "" {
		return err
	}
	if err := expected.Check(sum); err != nil {
		return exitError{exitDisagree, fmt.Errorf("not as --expect says:\n  %w", err)}
	}
	return nil
}

// capture inspects the frames, and sums up also where they cannot be read to the end.
func (o *replayOptions) capture(frames *capture.Reader, inspector *inspect.Inspector, file *inspect.File, interrupted func() bool, end func()) (*inspect.Summary, error) {
	err := inspector.Capture(frames, file, func() error {
		if interrupted() {
			return errInterrupted
		}
		return nil
	})
	end()
	if errors.Is(err, inspect.ErrCapture) {
		err = inputError(fmt.Errorf("%s: %w", files.Name(o.in), err))
	}
	err = errors.Join(err, file.Close())
	for _, skipped := range frames.Skipped() {
		fmt.Fprintf(o.stderr, "left out: %s\n", skipped)
	}
	sum := inspector.Summary()
	if sum.Annotated > 0 {
		fmt.Fprintf(o.stderr, "warning: %d frames carry a verdict already, as behind a NIC of tapsec; read those with\n  tapsec show %s\n", sum.Annotated, files.Name(o.in))
	}
	if n := sum.LeftOut; o.shown && n > 0 {
		fmt.Fprintf(o.stderr, "left out: %d frames without a verdict\n", n)
	}
	err = errors.Join(err, o.sumUp(sum))
	if err == nil && inspector.Frames() == 0 && len(frames.Skipped()) > 0 {
		err = inputError(fmt.Errorf("%s: no frame of a link type that is understood", files.Name(o.in)))
	}
	return sum, err
}

// sumUp prints the account: alone on standard output, else after the frames on
// standard error, where JSON is to be read by a program in one sentence.
func (o *replayOptions) sumUp(s *inspect.Summary) error {
	switch {
	case o.summaryOnly && o.json:
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.stdout, "%s\n", text)
		return err
	case o.summaryOnly && o.out != "-":
		return s.Table(o.stdout)
	case o.json:
		_, err := fmt.Fprintln(o.stderr, s)
		return err
	}
	return s.Table(o.stderr)
}

// progress shows on a terminal how far a capture is read, where nothing else goes
// there meanwhile.
func (o *replayOptions) progress(p *inspect.Progress, i *inspect.Inspector) (end func()) {
	if console.IsTerminal(o.stdout) && !o.summaryOnly {
		return func() {}
	}
	return console.New(o.stderr).Show(func() string { return p.Line(i.Frames(), time.Now()) })
}

// inspector is the NIC and who tells of its frames.
func (o *replayOptions) inspector(c *configs.Config, page *reporting) (*inspect.Inspector, error) {
	to := inspect.Options{JSON: o.json, Shown: o.shown, Quiet: o.summaryOnly || o.out == "-"}
	if page != nil {
		to.Watch = page.Watch
	}
	var err error
	if to.Colour, err = console.Colour(o.color, o.stdout); err != nil {
		return nil, err
	}
	if to.Filter, err = inspect.ParseFilter(o.only, o.sas, o.spis, o.hosts); err != nil {
		return nil, err
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	return inspect.New(nic, c, o.stdout, to)
}

var errInterrupted = errors.New("interrupted")

// load reads the SAs and everything else that a configuration says; nil where the
// capture is to say it.
func (o *replayOptions) load() (*configs.Config, error) {
	switch {
	case o.config != "" && len(o.keys) > 0:
		return nil, inputError(errors.New("give the SAs with -c FILE or with -k FILE, one of the two"))
	case o.withKeys && o.out == "":
		return nil, inputError(errors.New("--with-keys is about the file of -o; name one"))
	case o.withKeys && (o.form != "" || o.annotate != ""):
		return nil, inputError(errors.New("--with-keys leaves frames as they came; leave out --form and --annotate"))
	case o.config == "" && len(o.keys) == 0:
		return nil, nil
	case slices.Contains(o.keys, "-") && o.in == "-":
		return nil, inputError(errors.New("SAs and capture cannot both come from standard input; save one of them"))
	}
	c, err := o.read()
	if err != nil {
		return nil, inputError(err)
	}
	return c, nil
}

// secrets takes the SAs that the capture carries if none were given, and says what the file
// that is written has to carry.
func (o *replayOptions) secrets(c *configs.Config, frames *capture.Reader) (_ *configs.Config, carried []capture.Secret, err error) {
	c, carried, err = secrets.Exchange(frames, files.Name(o.in), c, o.withKeys)
	switch {
	case err != nil:
		return nil, nil, err
	case c == nil && o.shown:
		c = configs.Default()
	case c == nil:
		return nil, nil, fmt.Errorf("%s carries no SAs; give them with -c FILE or with -k FILE", files.Name(o.in))
	}
	c.Host.Form, c.Host.Annotate = cmp.Or(o.form, c.Host.Form), cmp.Or(o.annotate, c.Host.Annotate)
	return c, carried, nil
}

func (o *replayOptions) read() (*configs.Config, error) {
	if o.config != "" {
		return configs.Load(o.config)
	}
	return configs.LoadKeys(o.keys, o.stdin)
}

// output opens the file that is to be a copy of the capture with the frames as
// they are delivered, or with carried secrets as they came. With - it is standard
// output, and frames have no lines there.
func (o *replayOptions) output(frames *capture.Reader, noTrailer bool, carried []capture.Secret) (*inspect.File, error) {
	in := files.Inputs{Paths: append([]string{o.config, o.in, o.expect, "-"}, o.keys...), Stdin: o.stdin}
	var to io.WriteCloser
	switch o.out {
	case "":
		return nil, nil
	case "-":
		if o.json {
			return nil, inputError(errors.New("--json and -o -: standard output can be one of the two"))
		}
		if err := in.RefuseOpen("-o -", o.stdout); err != nil {
			return nil, inputError(err)
		}
		to = files.KeepOpen{Writer: o.stdout}
	default:
		mode := os.FileMode(0o666)
		if o.withKeys {
			mode = 0o600
		}
		file, err := in.Create("-o", o.out, mode)
		if err != nil {
			return nil, inputError(err)
		}
		to = file
	}
	if o.withKeys {
		warnExposed(o.stderr, to)
	}
	return inspect.NewFile(o.out, to, frames, noTrailer, carried), nil
}
