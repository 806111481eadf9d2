package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

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
	keys     string
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
alone" where nothing was checked. Exit code 0 says that the capture was read to
its end, whatever the verdicts.`,
		Example: `  ip xfrm state | tapsec replay -k - trace.pcap
  tapsec replay -c site.yaml trace.pcap -o annotated.pcapng
  tcpdump -U -i eth0 -w - | tapsec replay -c site.yaml --json -`,
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
	f.StringVarP(&o.keys, "keys", "k", "", "`FILE` with SAs in another tool's form")
	f.StringVarP(&o.out, "output", "o", "", "write the delivered frames to this pcapng `FILE`")
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
	say := newReporter(o.stdout, o.json)
	pipe, err := offline(c, say)
	if err != nil {
		return inputError(err)
	}
	if o.in == "-" {
		defer outliveInterrupt()()
	}
	in, err := openInput(o.in, o.stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	frames, err := capture.NewReader(in)
	if err != nil {
		return inputError(fmt.Errorf("%s: %w", inputName(o.in), err))
	}
	if o.out == "-" || same(in, o.out) {
		return inputError(fmt.Errorf("-o %s: expected a file of its own, not standard output or the capture itself", o.out))
	}
	out, err := newFrameFile(o.out, c)
	if err != nil {
		return err
	}
	err = each(frames, pipe, func(frame []byte, info capture.Info) error {
		line, err := say.frame(frame, info)
		return errors.Join(err, out.write(frame, info, line))
	})
	if errors.Is(err, errCapture) {
		err = inputError(fmt.Errorf("%s: %w", inputName(o.in), err))
	}
	fmt.Fprintln(o.stderr, say.summary())
	return errors.Join(err, out.Close())
}

// outliveInterrupt lets the first SIGINT pass, until the function that it
// returns is called. A terminal gives it to tcpdump at the pipe's other end too,
// whose last frames and end of file are still to come. The second one kills.
func outliveInterrupt() func() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT)
	context.AfterFunc(ctx, stop)
	return stop
}

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
	case (o.config == "") == (o.keys == ""):
		return nil, inputError(errors.New("give the SAs with -c FILE or with -k FILE, one of the two"))
	case o.keys == "-" && o.in == "-":
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

// same tells whether a path names the file that is read, which creating it
// would empty.
func same(in io.Reader, path string) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	a, err1 := file.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && a.Mode().IsRegular() && os.SameFile(a, b)
}

// frameFile is the pcapng file of the delivered frames; the zero frameFile
// writes nothing.
type frameFile struct {
	file      *os.File
	writer    *capture.Writer
	noTrailer bool
}

func newFrameFile(path string, c *configs.Config) (*frameFile, error) {
	if path == "" {
		return &frameFile{}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, inputError(err)
	}
	w, err := capture.NewWriter(file)
	if err == nil {
		_, err = w.Interface(c.Host.Name, "frames as the host receives them")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &frameFile{file, w, c.Host.Annotate == configs.None}, nil
}

func (f *frameFile) write(frame []byte, info capture.Info, comment string) error {
	if f.file == nil {
		return nil
	}
	if f.noTrailer {
		frame = withoutTrailer(frame)
	}
	return f.writer.Frame(0, info.Time, frame, comment)
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
	return f.file.Close()
}
