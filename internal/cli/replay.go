package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/status"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	config   string
	keys     []string
	in, out  string
	json     bool
	form     configs.Form
	annotate configs.Annotate

	stdin          io.Reader
	stdout, stderr io.Writer
}

func newReplay() *cobra.Command {
	o := replayOptions{}
	var form, annotate string
	cmd := &cobra.Command{
		Use:   "replay {-c FILE | -k FILE} IN.pcap",
		Short: "Say what happened to each frame of a capture, and why",
		Long: `replay leads every frame of a capture through the appliance, without a TAP and
without privileges. The SAs come from a configuration (-c), or from what another
tool knows (-k): the text of ip xfrm state, a Wireshark esp_sa table, the log of
strongSwan's charon with filelog { chd = 4 }, or a configuration. IN and the key
file may be - for standard input.

A frame is "good" where every portion checked is; "good, both" where these are a
tunnel and a transport portion; "FAILED" where a check was not passed; "left
alone" where nothing was checked; "not judged" where the capture lacks the end of
a frame, so that nobody can check it. Exit code 0 says that the capture was read to
its end, whatever the verdicts.`,
		Example: `  ip xfrm state | tapsec replay -k - trace.pcap
  tapsec replay -c site.yaml trace.pcap -o annotated.pcapng
  tcpdump -U -i eth0 -w - | tapsec replay -c site.yaml --json -
  tapsec replay -c site.yaml -o - trace.pcap | wireshark -k -i -`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.in = given[0]
			o.stdin, o.stdout, o.stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := errors.Join(setText(&o.form, form, "--form"), setText(&o.annotate, annotate, "--annotate")); err != nil {
				return inputError(err)
			}
			return replay(o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE` with the SAs")
	f.StringArrayVarP(&o.keys, "keys", "k", nil, "`FILE` with SAs in another tool's form; may be given several times")
	f.StringVarP(&o.out, "output", "o", "", "write the capture anew with the frames as delivered to this pcapng `FILE`; - is standard output")
	f.BoolVar(&o.json, "json", false, "print one JSON object per frame and nothing else")
	f.StringVar(&form, "form", "", "`FORM` of the frames: inplace, as on the wire, or decap, opened headers taken off (default: the configuration's)")
	f.StringVar(&annotate, "annotate", "", "`WHAT` stands behind each written frame: trailer, the verdict, or none (default: the configuration's)")
	completeFlags(cmd)
	return cmd
}

// setText reads a flag's text into v, where the flag was given.
func setText(v interface{ UnmarshalText([]byte) error }, text, flag string) error {
	if text == "" {
		return nil
	}
	if err := v.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// replay runs a capture through the appliance.
//
//  1. Read the SAs, and key a NIC with them.
//  2. Open the capture, and the file for the delivered frames.
//  3. Process frame by frame; say what the trailer says.
func replay(o replayOptions) (err error) {
	c, err := o.load()
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(o.stderr, "warning:", w)
	}
	lines := o.stdout
	if o.out == "-" {
		lines = io.Discard
	}
	say := newReporter(lines, o.json)
	pipe, err := offline(c, say)
	if err != nil {
		return inputError(err)
	}
	interrupted := interrupts(o.in == "-")
	in, err := openInput(o.in, o.stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	frames, err := capture.NewReader(in)
	if err != nil {
		return inputError(fmt.Errorf("%s: %w", inputName(o.in), err))
	}
	out, err := o.output(frames, c.Host.Annotate == configs.None)
	if err != nil {
		return err
	}
	err = each(frames, pipe, func(frame []byte, info capture.Info) error {
		if interrupted() {
			return errInterrupted
		}
		line, err := say.frame(frame, info)
		return errors.Join(err, out.write(frame, info, line))
	})
	if errors.Is(err, errCapture) {
		err = inputError(fmt.Errorf("%s: %w", inputName(o.in), err))
	}
	err = errors.Join(err, out.Close())
	for _, skipped := range frames.Skipped() {
		fmt.Fprintf(o.stderr, "left out: %s\n", skipped)
	}
	fmt.Fprintln(o.stderr, say.summary())
	if err == nil && say.total == 0 && len(frames.Skipped()) > 0 {
		err = inputError(fmt.Errorf("%s: no frame of a link type that is understood", inputName(o.in)))
	}
	return err
}

// interrupts returns a function that reports whether SIGINT has come: replay then
// sums up what it has. Where the capture comes through a pipe, a terminal gives
// the signal to tcpdump at the other end, too, whose last frames and end of file
// are still to come: then the first one is let pass. The next one kills.
func interrupts(pipe bool) func() bool {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT)
	context.AfterFunc(ctx, stop)
	return func() bool { return !pipe && ctx.Err() != nil }
}

var errInterrupted = errors.New("interrupted")

// errCapture marks what is wrong with the capture, rather than with the output.
var errCapture = errors.New("the capture cannot be read further")

// each leads all frames of a capture through the pipeline, each at the time at
// which it was captured.
func each(frames *capture.Reader, pipe *pipeline.Pipeline, do func([]byte, capture.Info) error) error {
	for {
		frame, info, err := frames.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCapture, err)
		}
		pipe.At(info.Time)
		if err := do(pipe.Process(frame), info); err != nil {
			return err
		}
	}
}

// load reads the SAs and everything else that a configuration says.
func (o *replayOptions) load() (*configs.Config, error) {
	switch {
	case (o.config == "") == (len(o.keys) == 0):
		return nil, inputError(errors.New("give the SAs with -c FILE or with -k FILE, one of the two"))
	case slices.Contains(o.keys, "-") && o.in == "-":
		return nil, inputError(errors.New("SAs and capture cannot both come from standard input; save one of them"))
	}
	c, err := o.read()
	if err != nil {
		return nil, inputError(err)
	}
	if o.form != "" {
		c.Host.Form = o.form
	}
	if o.annotate != "" {
		c.Host.Annotate = o.annotate
	}
	return c, nil
}

func (o *replayOptions) read() (*configs.Config, error) {
	if o.config != "" {
		return configs.Load(o.config)
	}
	return readKeys(o.keys, o.stdin)
}

// offline is the appliance with one pipeline, on no interface. Its frames carry
// trailers whatever is to be written in the end: they are what is reported.
func offline(c *configs.Config, say *reporter) (*pipeline.Pipeline, error) {
	one := *c
	one.Queues, one.Host.Annotate = 1, configs.Trailer
	a, err := appliance.NewAdapter(&one)
	if err != nil {
		return nil, err
	}
	for _, held := range a.SAs() {
		say.names[held.Handle] = held.Name
	}
	return a.Pipeline(0), nil
}

// openInput opens a file; - is standard input.
func openInput(path string, stdin io.Reader) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(stdin), nil
	}
	return os.Open(path)
}

// inputName is what messages call an input.
func inputName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// frameFile is the pcapng file of the delivered frames; the zero frameFile
// writes nothing.
type frameFile struct {
	path      string
	file      io.WriteCloser
	buffer    *bufio.Writer
	copy      *capture.Copy
	noTrailer bool
	frames    int
}

// output opens the file that is to be a copy of the capture with the frames as
// they are delivered. It is flushed before the capture is waited for, so that a
// pipe at either end stays live. With - it is standard output, and frames have no
// lines there.
func (o *replayOptions) output(frames *capture.Reader, noTrailer bool) (*frameFile, error) {
	f := &frameFile{path: o.out, noTrailer: noTrailer}
	in := inputs{append([]string{o.config, o.in, "-"}, o.keys...), o.stdin}
	switch o.out {
	case "":
		return f, nil
	case "-":
		if o.json {
			return nil, inputError(errors.New("--json and -o -: standard output can be one of the two"))
		}
		if err := in.refuseOpen("-o -", o.stdout); err != nil {
			return nil, inputError(err)
		}
		f.file = keepOpen{o.stdout}
	default:
		file, err := in.create("-o", o.out, 0o666)
		if err != nil {
			return nil, inputError(err)
		}
		f.file = file
	}
	f.buffer = bufio.NewWriterSize(f.file, 1<<16)
	f.copy = frames.CopyTo(f.buffer)
	frames.BeforeRead(func() { f.buffer.Flush() }) // its error stays, and comes with the next frame
	return f, nil
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

func (f *frameFile) write(frame []byte, info capture.Info, comment string) error {
	if f.file == nil {
		return nil
	}
	if f.noTrailer {
		frame = withoutTrailer(frame)
	}
	if err := f.copy.Frame(frame, info, comment); err != nil {
		return f.failed(err)
	}
	f.frames++
	return nil
}

// failed says what a failed write means where that is the reader's doing.
func (f *frameFile) failed(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("-o %s: its reader has left after %s or fewer", f.path, count(f.frames, "frame"))
	}
	return err
}

// withoutTrailer is the frame as it is delivered with annotate: none, without
// the padding in front of the trailer.
func withoutTrailer(frame []byte) []byte {
	body, t, err := status.Split(frame)
	if err != nil {
		return frame
	}
	if t.Form == status.InPlace {
		return body[:t.WireLen]
	}
	if p, ok := ownPacket(body); ok {
		return body[:p.Reach]
	}
	return body
}

// Close closes the file, if there is one.
func (f *frameFile) Close() error {
	if f.file == nil {
		return nil
	}
	err := errors.Join(f.copy.Close(), f.buffer.Flush())
	if f.copy.Close() != nil { // said already
		err = nil
	}
	if err != nil {
		err = f.failed(err)
	}
	return errors.Join(err, f.file.Close())
}
