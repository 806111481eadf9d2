// Package inspect tells what happened to the frames of a capture: a line or a JSON object
// for each, a file of the frames as they are delivered, and the sum by SA. It passes the
// frames through a NIC, and reads what each trailer says.
//
// It opens no file and knows no flags. An Inspector is unsafe for concurrent use, except
// for Frames.
package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/internal/diagnosis"
	"tapsec/pipeline"
	"tapsec/status"
)

// Options say which frames are reported, and how.
type Options struct {
	JSON   bool        // one object for each frame, instead of lines
	Quiet  bool        // neither
	Colour bool        // of verdicts
	Shown  bool        // frames are annotated already: their trailers are reported, and nothing is judged
	Watch  func(*Seen) // called with each frame that counts, if not nil
	Filter
}

// Seen is what Watch gets of a frame. It is valid during the call.
type Seen struct {
	Number  int
	Time    time.Time
	Verdict string // as the lines have it
	Trailer *status.Trailer
	account.Marks
	Name func(handle uint32) string // of an SA
}

// NIC judges frames, each at its time of capture by the SAs of that time. An
// *appliance.Offline is one.
type NIC interface {
	SAs() []pipeline.Holding
	Enter(t time.Time) (changed bool, err error)
	Process(frame []byte, received time.Time) []byte
}

// Inspector reports on the frames of one capture.
type Inspector struct {
	opt     Options
	nic     NIC
	account *account.Account
	why     *diagnosis.Case
	out     *bufio.Writer
	sum     Summary
	shown   *shown
	total   atomic.Int64

	frame frame
	text  []byte // scratch: a frame's line, object or comment
	words []byte // scratch: a line before it is broken
}

// frame is the frame being inspected.
type frame struct {
	capture.Info
	account.Frame
	account.Marks

	trailer  status.Trailer
	body     []byte // without its trailer
	fate     fate
	src, dst netip.Addr // of its own packet as it was captured
}

// New makes an Inspector that writes lines or objects to out, for the NIC of a
// configuration. The error is a filter's name that no SA has.
func New(nic NIC, c *configs.Config, out io.Writer, opt Options) (*Inspector, error) {
	held := heldBy(nic.SAs())
	others := c.Others()
	if err := opt.Filter.check(held, others); err != nil {
		return nil, err
	}
	if opt.Shown {
		held = nil
	}
	return &Inspector{opt: opt, nic: nic, shown: newShown(c), account: account.New(held), why: diagnosis.New(nic.SAs(), others),
		out: bufio.NewWriterSize(out, 1<<16)}, nil
}

func heldBy(sas []pipeline.Holding) (held []account.Held) {
	for _, h := range sas {
		held = append(held, account.Held{SA: h.SA, Handle: h.Handle})
	}
	return held
}

// enter puts the SAs of a time in force.
func (i *Inspector) enter(t time.Time) error {
	changed, err := i.nic.Enter(t)
	if changed {
		i.account.Hold(heldBy(i.nic.SAs()))
		i.why.Hold(i.nic.SAs())
	}
	return err
}

// Frames is how many frames have been read. Any goroutine may call it.
func (i *Inspector) Frames() int64 { return i.total.Load() }

// ErrCapture marks errors of the capture rather than of the output.
var ErrCapture = errors.New("the capture cannot be read further")

// Capture passes all frames of a capture through the pipeline, each at its time of capture,
// until one cannot be read or written, or stop returns an error. Output is flushed before
// waiting for the capture, so that a pipe at either end stays live.
func (i *Inspector) Capture(frames *capture.Reader, file *File, stop func() error) error {
	frames.BeforeRead(func() { // errors stay, and come with the next frame
		_ = i.out.Flush()
		file.flush()
	})
	err := i.each(frames, file, stop)
	for _, skipped := range frames.Skipped() {
		i.sum.LeftOut += uint64(skipped.Frames)
	}
	return errors.Join(err, i.out.Flush())
}

func (i *Inspector) each(frames *capture.Reader, file *File, stop func() error) error {
	for {
		b, info, err := frames.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCapture, err)
		}
		if err := stop(); err != nil {
			return err
		}
		if err := i.one(b, info, file); err != nil {
			return err
		}
	}
}

// one judges a frame and reports it.
func (i *Inspector) one(b []byte, info capture.Info, file *File) error {
	f := &i.frame
	f.Info, f.src, f.dst = info, netip.Addr{}, netip.Addr{}
	if p, ok := account.OwnPacket(b); ok {
		f.src, f.dst = p.Src, p.Dst
	}
	file.keep(b)
	if !i.opt.Shown {
		var err error
		if b, err = i.judge(b, info.Time); err != nil {
			return err
		}
	}
	if f.read(b) != nil {
		i.sum.LeftOut++
		return nil
	}
	if i.opt.Shown {
		i.shown.meet(i.account, &f.trailer)
	}
	i.total.Add(1)
	if !i.selects(f) {
		return nil
	}
	f.Marks = i.account.Frame(&f.Frame)
	if !i.opt.Shown {
		i.why.See(f.body, &f.Frame, f.Info.Number)
	}
	i.sum.count(f)
	if i.opt.Watch != nil {
		i.opt.Watch(&Seen{f.Info.Number, f.Time, fates[f.fate], &f.trailer, f.Marks, i.account.Name})
	}
	if !i.opt.Only.has(f) {
		return nil
	}
	if err := i.tell(f); err != nil || file == nil {
		return err
	}
	i.text = i.appendComment(i.text[:0], f)
	return file.write(b, info, string(i.text))
}

// judge lets the NIC process a frame, which gives it a trailer.
func (i *Inspector) judge(b []byte, captured time.Time) ([]byte, error) {
	if _, _, err := status.Split(b); err == nil {
		i.sum.Annotated++
	}
	if err := i.enter(captured); err != nil {
		return nil, err
	}
	return i.nic.Process(b, captured), nil
}

// read takes a delivered frame apart.
func (f *frame) read(b []byte) error {
	body, t, err := status.Split(b)
	if err != nil {
		return err
	}
	f.judged(body, &t)
	return nil
}

// judged makes it a frame with this trailer.
func (f *frame) judged(body []byte, t *status.Trailer) {
	f.body, f.trailer, f.fate = body, *t, fateOf(t.Word, f.Missing)
	f.Frame = account.FrameOf(body, &f.trailer, f.src, f.dst, f.Missing)
}

// tell writes the frame's line or object.
func (i *Inspector) tell(f *frame) error {
	switch {
	case i.opt.Quiet:
		return nil
	case i.opt.JSON:
		i.text = i.appendJSON(i.text[:0], f)
	default:
		i.text = i.appendLine(i.text[:0], f)
	}
	_, err := i.out.Write(i.text)
	return err
}

// fate is what became of a frame.
type fate uint8

// The fates. A frame that fails but was cut short by the capture is not judged, since what
// is left says nothing about what was sent.
const (
	good fate = iota
	goodBoth
	failed
	leftAlone
	notJudged
)

var fates = [...]string{good: "good", goodBoth: "good, both", failed: "FAILED", leftAlone: "left alone", notJudged: "not judged"}

func fateOf(w status.Word, missing int) fate {
	switch {
	case w.Code() != status.Success && missing > 0:
		return notJudged
	case !w.Done():
		return leftAlone
	case w.Code() != status.Success:
		return failed
	case w.Next():
		return goodBoth
	}
	return good
}
