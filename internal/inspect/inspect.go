// Package inspect tells what happened to the frames of a capture: a line or a JSON
// object for each, a file of them as they are delivered, and the sum by SA. It leads
// them through the appliance's pipeline, and reads of each what its trailer says.
//
// It opens no file and knows no flags. An Inspector is unsafe for concurrent use,
// but for Frames. It has workers of its own (crew), and what it writes is the same, however many.
package inspect

import (
	"bufio"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/internal/diagnosis"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// Options say which frames are reported, and how.
type Options struct {
	JSON   bool        // an object a frame, not lines
	Quiet  bool        // neither
	Colour bool        // of verdicts
	Shown  bool        // frames are annotated already: what their trailers say is told, and nothing judged
	Watch  func(*Seen) // is told of each frame that counts; nil: nobody asks
	Filter
}

// Seen is what a Watch is told of a frame. It is valid during the call.
type Seen struct {
	Number  int
	Time    time.Time
	Verdict account.Verdict
	Trailer *status.Trailer
	account.Marks
	Name func(handle uint32) string // of an SA
}

// NIC judges frames, each at its time of capture by the SAs of that time, in pipelines of which
// each may have a goroutine of its own. An *appliance.Offline is one.
type NIC interface {
	SAs() []pipeline.Holding
	Pipelines() []*pipeline.Pipeline
	Ordered() bool         // verdicts may depend on the frames before
	Over(t time.Time) bool // Enter would change something
	Enter(t time.Time) (changed bool, err error)
}

// Inspector reports on the frames of one capture.
type Inspector struct {
	opt     Options
	nic     NIC
	account *account.Account
	why     *diagnosis.Case
	out     *bufio.Writer
	file    *File
	sum     Summary
	named   map[sender]*sa.SA // those of frames that are Shown
	total   atomic.Int64
	pipes   []*pipeline.Pipeline // one for each worker
	batch   int                  // frames in one, at most
}

// New makes an Inspector that writes lines or objects to out, for the NIC of a
// configuration. The error is a filter's name that no SA has.
func New(nic NIC, c *configs.Config, out io.Writer, opt Options) (*Inspector, error) {
	held := nic.SAs()
	others := c.Others()
	if err := opt.Filter.check(held, others); err != nil {
		return nil, err
	}
	if opt.Shown {
		held = nil
	}
	return &Inspector{opt: opt, nic: nic, named: sendersOf(c), account: account.New(held), why: diagnosis.New(nic.SAs(), others),
		out: bufio.NewWriterSize(out, 1<<16), pipes: nic.Pipelines(), batch: batchFrames}, nil
}

// enter puts the SAs of a time in force. No frame is in work meanwhile.
func (i *Inspector) enter(t time.Time) error {
	changed, err := i.nic.Enter(t)
	if changed {
		held := i.nic.SAs()
		i.account.Hold(held)
		i.why.Hold(held)
	}
	return err
}

// Frames is how many frames have been read. Any goroutine may call it.
func (i *Inspector) Frames() int64 { return i.total.Load() }

// ErrCapture marks errors of the capture rather than of the output.
var ErrCapture = errors.New("the capture cannot be read further")

// Capture leads all frames of a capture through the pipeline, each at the time of its
// capture, until one cannot be read or written, or stop returns an error. Output is flushed
// before the capture is waited for, so that a pipe at either end stays live.
func (i *Inspector) Capture(frames *capture.Reader, file *File, stop func() error) error {
	i.file = file
	if !i.opt.Shown {
		frames.SkipDelivered()
	}
	c := crew{i: i, frames: frames, stop: stop}
	err := c.work()
	for _, skipped := range frames.Skipped() {
		i.sum.LeftOut += uint64(skipped.Frames)
	}
	return errors.Join(err, i.out.Flush())
}

// count counts a frame, if the filter selects it, and says whether it is told of.
func (i *Inspector) count(f *frame) {
	if i.opt.Shown {
		meet(i.account, &f.trailer, func(r *status.Record) *sa.SA { return i.named[sender{r.SPI, r.Protocol}] })
	}
	f.called(i.account)
	if !i.selects(f) {
		return
	}
	f.Marks = i.account.Frame(&f.Frame)
	if !i.opt.Shown {
		i.why.See(f.body, &f.Frame, f.Info.Number)
	}
	i.sum.count(f)
	if i.opt.Watch != nil {
		i.opt.Watch(&Seen{f.Info.Number, f.Time, f.verdict, &f.trailer, f.Marks, i.account.Name})
	}
	f.told = i.opt.Only.has(f)
}

// flush hands out what is written; errors stay, and come with the next frame.
func (i *Inspector) flush() {
	_ = i.out.Flush()
	i.file.flush()
}
