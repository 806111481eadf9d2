package inspect

import (
	"net/netip"

	"tapsec/capture"
	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/status"
)

// frame is one frame of a batch, and its memory.
type frame struct {
	capture.Info
	account.Frame
	account.Marks

	bytes    []byte // as it came, then as it is delivered
	original []byte // as it came, where that is asked for later
	body     []byte // delivered, without its trailer
	trailer  status.Trailer
	verdict  account.Verdict
	src, dst netip.Addr                // of its own packet as it was captured
	names    [status.MaxRecords]string // of the records' SAs

	annotated bool // it came with a trailer
	leftOut   bool // it has none, although it should
	told      bool // lines and file have it
	behind    int  // bytes of the batch's aside that stand in front of it

	buffer  capture.Buffer
	assumed pipeline.Assumed
}

// read takes a delivered frame apart.
func (f *frame) read() {
	var err error
	f.body, f.trailer, err = status.Split(f.bytes)
	if f.leftOut = err != nil; !f.leftOut {
		f.judged()
	}
}

// judged says what body and trailer come to.
func (f *frame) judged() {
	f.Frame = account.FrameOf(f.body, &f.trailer, f.src, f.dst, f.Missing)
	f.verdict = account.VerdictOf(f.trailer.Word, f.Cut)
}

// called gives the records the names of their SAs.
func (f *frame) called(a *account.Account) {
	for n := range f.trailer.N {
		f.names[n] = a.Name(f.trailer.Records[n].Handle)
	}
}
