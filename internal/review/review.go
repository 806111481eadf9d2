// Package review goes through a capture for replay, show and explain: it finds the SAs, in a
// configuration, another tool's text or the capture itself, and tells what happened to the
// frames in all the forms that are asked for.
package review

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/console"
	"tapsec/internal/exit"
	"tapsec/internal/files"
	"tapsec/internal/inspect"
	"tapsec/internal/secrets"
)

// Options say what is read, which frames count, and what is told of them.
type Options struct {
	Config   string   // file with the SAs
	Keys     []string // or files in another tool's form
	In, Out  string   // captures; - is a standard stream
	Shown    bool     // the frames have their verdicts, and none is judged
	WithKeys bool     // put the SAs into Out, and leave frames as they came
	Carriers bool     // take frames out of what carries them past a NIC
	carried  carried

	Form     configs.Form // empty: the configuration's
	Annotate configs.Annotate

	JSON, SummaryOnly bool
	Only, SPIs        []string
	SAs, Hosts        []string
	Color             string // auto, always or never
	Expect            string // all-good, or a file
	Report            string // page for a browser

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Replay runs a capture through the appliance. An error that the user can mend is marked
// exit.Input, and one of --expect exit.Disagree.
//
//  1. Read the SAs, which may be in the capture, what is expected, and which frames
//     are meant; key a NIC.
//  2. Open the file for the delivered frames.
//  3. Inspect frame by frame, then sum up, and compare.
func Replay(o Options) (err error) {
	c, err := o.load()
	if err != nil {
		return err
	}
	in, err := files.Open(o.In, o.Stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	source := &waiting{Progress: inspect.NewProgress(in), done: console.Interrupts(!files.IsRegular(in))}
	c, frames, carried, err := o.open(c, source)
	if errors.Is(err, errInterrupted) {
		return errInterrupted
	}
	if err != nil {
		return inputError(err)
	}
	expected, err := inspect.LoadExpectation(o.Expect)
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
	end := o.progress(source.Progress, inspector)
	sum, err := o.capture(frames, inspector, file, source.stop, end)
	err = errors.Join(err, page.write(&o, c, sum))
	if err != nil || o.Expect == "" {
		return err
	}
	if err := expected.Check(sum); err != nil {
		return exit.Mark(exit.Disagree, fmt.Errorf("not as --expect says:\n  %w", err))
	}
	return nil
}

// open begins to read the capture, takes its SAs where c is nil, and says what there is to warn of.
func (o *Options) open(c *configs.Config, in io.Reader) (_ *configs.Config, frames *capture.Reader, carried []capture.Secret, err error) {
	if frames, err = o.reader(in); err != nil {
		return nil, nil, nil, err
	}
	if c, carried, err = o.secrets(c, frames); err == nil {
		c.Warn(o.Stderr)
	}
	return c, frames, carried, err
}

// reader begins to read the capture.
func (o *Options) reader(in io.Reader) (*capture.Reader, error) {
	frames, err := capture.NewReader(in)
	switch {
	case err != nil:
		err = fmt.Errorf("%s: %w", files.Name(o.In), err)
	case o.Carriers:
		frames.Open(capture.Unwrap)
	case !o.Shown: // show has no --carriers
		frames.Open(o.carried.look)
	}
	return frames, err
}

// capture inspects the frames, and sums up also where they cannot be read to the end.
func (o *Options) capture(frames *capture.Reader, inspector *inspect.Inspector, file *inspect.File, stop func() error, end func()) (*inspect.Summary, error) {
	err := inspector.Capture(frames, file, stop)
	end()
	switch {
	case errors.Is(err, errInterrupted):
		err = errInterrupted
	case errors.Is(err, inspect.ErrCapture):
		err = inputError(fmt.Errorf("%s: %w", files.Name(o.In), err))
	}
	err = errors.Join(err, file.Close())
	for _, skipped := range frames.Skipped() {
		fmt.Fprintf(o.Stderr, "left out: %s\n", skipped)
	}
	o.carried.say(o.Stderr)
	sum := inspector.Summary()
	if sum.Annotated > 0 {
		fmt.Fprintf(o.Stderr, "warning: %d frames carry a verdict already, as behind a NIC of tapsec; read those with\n  tapsec show %s\n", sum.Annotated, files.Name(o.In))
	}
	if n := sum.LeftOut; o.Shown && n > 0 {
		hint := ""
		if sum.Frames == 0 {
			hint = "; tapsec replay judges them"
		}
		fmt.Fprintf(o.Stderr, "left out: %d frames without a verdict%s\n", n, hint)
	}
	err = errors.Join(err, o.sumUp(sum))
	if err == nil && inspector.Frames() == 0 && len(frames.Skipped()) > 0 {
		err = inputError(fmt.Errorf("%s: all of its frames are left out", files.Name(o.In)))
	}
	return sum, err
}

// sumUp prints the account: alone on standard output, else after the frames on
// standard error, where JSON is to be read by a program in one sentence.
func (o *Options) sumUp(s *inspect.Summary) error {
	switch {
	case o.SummaryOnly && o.JSON:
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Stdout, "%s\n", text)
		return err
	case o.SummaryOnly && o.Out != "-":
		return s.Table(o.Stdout)
	case o.JSON:
		_, err := fmt.Fprintln(o.Stderr, s)
		return err
	}
	return s.Table(o.Stderr)
}

// progress shows on a terminal how far a capture is read, where nothing else goes
// there meanwhile.
func (o *Options) progress(p *inspect.Progress, i *inspect.Inspector) (end func()) {
	if console.IsTerminal(o.Stdout) && !o.SummaryOnly {
		return func() {}
	}
	return console.New(o.Stderr).Show(func() string { return p.Line(i.Frames(), time.Now()) })
}

// inspector is the NIC and who tells of its frames.
func (o *Options) inspector(c *configs.Config, page *reporting) (*inspect.Inspector, error) {
	to := inspect.Options{JSON: o.JSON, Shown: o.Shown, Quiet: o.SummaryOnly || o.Out == "-"}
	if page != nil {
		to.Watch = page.Watch
	}
	var err error
	if to.Colour, err = console.Colour(o.Color, o.Stdout); err != nil {
		return nil, err
	}
	if to.Filter, err = inspect.ParseFilter(o.Only, o.SAs, o.SPIs, o.Hosts); err != nil {
		return nil, err
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	return inspect.New(nic, c, o.Stdout, to)
}

func inputError(err error) error { return exit.Mark(exit.Input, err) }

// load reads the SAs and everything else that a configuration says; nil where the
// capture is to say it.
func (o *Options) load() (*configs.Config, error) {
	switch {
	case o.Config != "" && len(o.Keys) > 0:
		return nil, inputError(errors.New("give the SAs with -c FILE or with -k FILE, one of the two"))
	case o.WithKeys && o.Out == "":
		return nil, inputError(errors.New("--with-keys is about the file of -o; name one"))
	case o.WithKeys && (o.Form != "" || o.Annotate != ""):
		return nil, inputError(errors.New("--with-keys leaves frames as they came; leave out --form and --annotate"))
	case o.Config == "" && len(o.Keys) == 0:
		return nil, nil
	case (o.Config == "-" || slices.Contains(o.Keys, "-")) && o.In == "-":
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
func (o *Options) secrets(c *configs.Config, frames *capture.Reader) (_ *configs.Config, carried []capture.Secret, err error) {
	c, carried, err = secrets.Exchange(frames, files.Name(o.In), c, o.WithKeys)
	switch {
	case err != nil:
		return nil, nil, err
	case c == nil && o.Shown:
		c = configs.Default()
	case c == nil:
		return nil, nil, fmt.Errorf("%s carries no SAs; give them with -c FILE or with -k FILE", files.Name(o.In))
	}
	c.Host.Form, c.Host.Annotate = cmp.Or(o.Form, c.Host.Form), cmp.Or(o.Annotate, c.Host.Annotate)
	return c, carried, nil
}

func (o *Options) read() (*configs.Config, error) {
	if o.Config != "" {
		return configs.LoadInput(o.Config, o.Stdin)
	}
	return configs.LoadKeys(o.Keys, o.Stdin)
}

// output opens the file that is to be a copy of the capture with the frames as
// they are delivered, or with carried secrets as they came. With - it is standard
// output, and frames have no lines there.
func (o *Options) output(frames *capture.Reader, noTrailer bool, carried []capture.Secret) (*inspect.File, error) {
	in := files.Inputs{Paths: append([]string{o.Config, o.In, o.Expect, "-"}, o.Keys...), Stdin: o.Stdin}
	var to io.WriteCloser
	switch o.Out {
	case "":
		return nil, nil
	case "-":
		if o.JSON {
			return nil, inputError(errors.New("--json and -o -: standard output can be one of the two"))
		}
		if err := in.RefuseOpen("-o -", o.Stdout); err != nil {
			return nil, inputError(err)
		}
		to = files.KeepOpen{Writer: o.Stdout}
	default:
		mode := os.FileMode(0o666)
		if o.WithKeys {
			mode = 0o600
		}
		file, err := in.Create("-o", o.Out, mode)
		if err != nil {
			return nil, inputError(err)
		}
		to = file
	}
	if o.WithKeys {
		files.WarnExposed(o.Stderr, to)
	}
	return inspect.NewFile(o.Out, to, frames, noTrailer, carried), nil
}
