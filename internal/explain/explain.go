// Package explain says what became of one frame of a capture, and why: what each stage looked
// up, found and compared, which bytes decided, what the contract and the RFCs say, near
// misses, and what became of the SA's frames around it.
//
// The frame goes through the pipeline itself, which is asked after each stage; nothing here
// judges. No key is shown. A computed ICV is shown; it reveals no key.
package explain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/internal/diagnosis"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// Frame is the account of one frame.
type Frame struct {
	Number    int
	Time      time.Time
	Interface string
	Missing   int    // bytes at its end that the capture lacks
	cut       bool   // of which its verdict may come
	Carrier   string // what it was taken out of; empty: nothing

	Bytes   []byte // as it came
	Opened  []byte // as delivered, without its trailer; nil if nothing was opened
	Trailer status.Trailer
	Steps   []pipeline.Step // after parse, tunnel and transport
	account.Marks

	Names []string // of the SAs of Trailer's records
	Near  []account.Finding
	Row   *account.Row // the SA's account of the whole capture; nil if the frame has none
	Story Story

	src, dst netip.Addr
	who      who
	then     status.Reason // of a running NIC's frame, if SAs have changed since; else 0
}

// Story is what became of the SA's frames around the explained one. Frames are numbered as in
// the capture; 0 is none.
type Story struct {
	Before          [account.NumVerdicts]int // it, by fate
	LastGood        int
	FirstGood, Next int             // after it: good, and not good
	NextFate        account.Verdict // of the latter
}

// who identifies the frames of one SA, or of one header without an SA.
type who struct {
	handle uint32
	header account.Header
}

// ErrNone says that the capture does not have the frame.
var ErrNone = errors.New("no such frame")

// NIC judges frames, each at its time of capture by the SAs of that time, and reports its
// stages. An *appliance.Offline is one.
type NIC interface {
	SAs() []pipeline.Holding
	Enter(t time.Time) (changed bool, err error)
	Process(frame []byte, received time.Time) []byte
	Tell(frame []byte, received time.Time, tell func(pipeline.Step)) []byte
}

// reader passes a capture through the NIC.
type reader struct {
	nic     NIC
	account *account.Account
	why     *diagnosis.Case
	want    map[int]bool // numbers; nil: the frame most worth explaining
	found   []*Frame
	came    []byte // the present frame as it came
	past    map[who]*Story
}

// Capture explains the frame with a number; 0 means the first that failed, else the first
// that was cut too short to be judged, else the first whose IPsec was left alone, else the
// first. The NIC is that of the configuration. The error is in the capture, of which the frame
// may be there nevertheless, or ErrNone.
func Capture(nic NIC, c *configs.Config, frames *capture.Reader, number int) (*Frame, error) {
	var want map[int]bool
	if number != 0 {
		want = map[int]bool{number: true}
	}
	found, err := explain(nic, c, frames, want)
	switch {
	case len(found) > 0:
		return found[0], err
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("frame %d: %w", number, none(number, frames))
}

// none says why a capture that was read does not have a frame to explain.
func none(number int, frames *capture.Reader) error {
	switch left := frames.Skipped(); {
	case number > frames.Frames() || len(left) == 0:
		return fmt.Errorf("%w: the capture has %d", ErrNone, frames.Frames())
	case len(left) == 1:
		return fmt.Errorf("%w to explain; left out: %s", ErrNone, left[0])
	default:
		return fmt.Errorf("%w to explain: the capture has %d, and this is of those left out", ErrNone, frames.Frames())
	}
}

// Which splits CAPTURE:N, unless a file has that very name.
func Which(text string) (path string, number int, err error) {
	at := strings.LastIndexByte(text, ':')
	if _, gone := os.Stat(text); at < 0 || gone == nil {
		return text, 0, nil
	}
	n, wrong := strconv.Atoi(text[at+1:])
	if wrong == nil && n > 0 {
		return text[:at], n, nil
	}
	if _, gone := os.Stat(text[:at]); gone == nil {
		err = fmt.Errorf("expected the number of a frame, from 1, behind %s:, found %s", text[:at], sa.Quote(text[at+1:]))
	}
	return text, 0, err
}

// Frames explains the frames with these numbers, if the capture has them, in its order. With
// an error in the capture it is those before it.
func Frames(nic NIC, c *configs.Config, frames *capture.Reader, numbers []int) ([]*Frame, error) {
	want := map[int]bool{}
	for _, n := range numbers {
		want[n] = true
	}
	return explain(nic, c, frames, want)
}

// explain passes a capture through a NIC as far as it can be read.
func explain(nic NIC, c *configs.Config, frames *capture.Reader, want map[int]bool) ([]*Frame, error) {
	frames.SkipDelivered()
	others := c.Others()
	r := &reader{nic: nic, account: account.New(nil), why: diagnosis.New(nic.SAs(), others), want: want, past: map[who]*Story{}}
	r.hold()
	for {
		b, info, err := frames.Next()
		if err == nil {
			err = r.frame(b, info)
		}
		if err == io.EOF {
			err = nil
		} else if err == nil {
			continue
		}
		r.finish()
		return r.found, err
	}
}

func (r *reader) hold() {
	held := r.nic.SAs()
	r.account.Hold(held)
	r.why.Hold(held)
}

// frame passes one frame through.
func (r *reader) frame(b []byte, info capture.Info) error {
	changed, err := r.nic.Enter(info.Time)
	if err != nil {
		return err
	}
	if changed {
		r.hold()
	}
	f := Frame{Number: info.Number, Time: info.Time, Interface: info.Interface, Missing: info.Missing, Carrier: info.Carrier}
	f.src, f.dst = account.Ends(b)
	r.came = append(r.came[:0], b...)
	body, t, err := status.Split(r.nic.Process(b, info.Time))
	if err != nil {
		return err
	}
	f.Trailer = t
	known := account.FrameOf(body, &t, f.src, f.dst, info.Missing)
	f.cut, f.Marks = known.Cut, r.account.Frame(&known)
	r.why.See(body, &known, info.Number)
	f.who = whoOf(&known)
	if r.prefers(&f) {
		r.take(&f)
	}
	r.remember(&f)
	return nil
}

// whoOf says whose frame it is: that of the SA whose check failed, or of the innermost SA.
func whoOf(f *account.Frame) who {
	records := f.Trailer.Records[:f.Trailer.N]
	for _, rec := range records {
		if rec.Reason.Failed() {
			return who{handle: rec.Handle}
		}
	}
	switch {
	case f.Unmatched:
		return who{header: f.Header}
	case len(records) > 0:
		return who{handle: records[len(records)-1].Handle}
	}
	return who{}
}

// rank orders frames by how much there is to explain.
func (f *Frame) rank() int {
	t := &f.Trailer
	switch {
	case t.Word.Code() != status.Success && f.Missing == 0:
		return 4
	case t.Word.Code() != status.Success:
		return 3
	case !t.Word.Done() && t.Reason.OfIPsec():
		return 2
	}
	return 1
}

// prefers reports whether the frame is wanted, as far as can be told by now.
func (r *reader) prefers(f *Frame) bool {
	if r.want != nil {
		return r.want[f.Number]
	}
	return len(r.found) == 0 || f.rank() > r.found[0].rank()
}

// take asks the pipeline about the frame it has just judged.
func (r *reader) take(f *Frame) {
	f.Bytes = bytes.Clone(r.came)
	told := r.nic.Tell(r.came, f.Time, func(s pipeline.Step) { f.Steps = append(f.Steps, s) })
	if f.Trailer.Word.Done() {
		if body, _, err := status.Split(told); err == nil {
			f.Opened = bytes.Clone(body)
		}
	}
	for _, rec := range f.Trailer.Records[:f.Trailer.N] {
		f.Names = append(f.Names, r.account.Name(rec.Handle))
	}
	if s := r.past[f.who]; s != nil {
		f.Story = *s
	}
	if r.want == nil {
		r.found = r.found[:0]
	}
	r.found = append(r.found, f)
}

// remember keeps what the Story says of an SA's frames before and after the explained one.
func (r *reader) remember(f *Frame) {
	if f.who == (who{}) {
		return
	}
	for _, told := range r.found {
		told.follow(f)
	}
	s := r.past[f.who]
	if s == nil {
		if len(r.past) == account.MaxUnknown {
			return
		}
		s = &Story{}
		r.past[f.who] = s
	}
	is := f.fate()
	if s.Before[is]++; is == account.Good {
		s.LastGood = f.Number
	}
}

// follow notes the SA's first good frame after the explained one, and the first that is not.
func (f *Frame) follow(next *Frame) {
	if next.Number == f.Number || next.who != f.who {
		return
	}
	is := next.fate()
	switch s := &f.Story; {
	case is == account.Good && s.FirstGood == 0:
		s.FirstGood = next.Number
	case is != account.Good && s.Next == 0:
		s.Next, s.NextFate = next.Number, is
	}
}

// fate is that of the frame at the SA whose frame it is: inside a good tunnel it may have
// failed, or been left alone.
func (f *Frame) fate() account.Verdict {
	for _, rec := range f.Trailer.Records[:f.Trailer.N] {
		switch {
		case rec.Handle != f.who.handle:
		case rec.Reason.Failed() && f.Missing > 0:
			return account.NotJudged
		case rec.Reason.Failed():
			return account.Failed
		case rec.State == status.ICVValid:
			return account.Good
		}
	}
	return account.LeftAlone
}

// finish adds what only the whole capture can tell.
func (r *reader) finish() {
	rows, _ := r.account.Rows()
	for _, f := range r.found {
		for i := range rows {
			if of := &rows[i]; f.who.handle != 0 && of.Handle == f.who.handle || f.who.handle == 0 && f.who != (who{}) && of.Header == f.who.header {
				f.Row = of
			}
		}
		if is := f.fate(); is == account.Failed || is == account.NotJudged || f.who != (who{}) && f.who.handle == 0 {
			f.Near = r.why.Findings(f.who.handle, f.who.header)
		}
	}
}
