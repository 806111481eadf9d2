package inspect

import (
	"tapsec/capture"
	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// Watched tells of frames that a running NIC has judged, as an Inspector tells of those of a
// capture. It is unsafe for concurrent use.
type Watched struct {
	i     Inspector
	sad   *pipeline.SAD
	frame frame
	text  []byte // scratch: a comment
}

// Watch begins with frames of a NIC that holds the SAs of sad. The error is a filter's name
// that none of them has.
func Watch(f Filter, sad *pipeline.SAD) (*Watched, error) {
	if len(f.SAs) > 0 {
		if err := f.check(sad.List(), nil); err != nil {
			return nil, err
		}
	}
	return &Watched{i: Inspector{opt: Options{Filter: f}, account: account.New(nil)}, sad: sad}, nil
}

// Frame returns what is said of a frame, as the comment of a File's packet, if the filter
// takes it. came is the frame as it was received, body as it is delivered, without its
// trailer. The comment is valid until the next call.
func (w *Watched) Frame(came, body []byte, t *status.Trailer) (comment []byte, takes bool) {
	i := &w.i
	f := &w.frame
	meet(i.account, t, func(r *status.Record) *sa.SA { return w.sad.Holding(r.Handle).SA })
	f.Info = capture.Info{}
	f.src, f.dst = account.Ends(came)
	f.body, f.trailer = body, *t
	f.judged()
	f.called(i.account)
	if !i.selects(f) {
		return nil, false
	}
	f.Marks = i.account.Frame(&f.Frame)
	if !i.opt.Only.has(f) {
		return nil, false
	}
	w.text = f.appendComment(w.text[:0])
	return w.text, true
}

// Marks are those of the frame of the last call.
func (w *Watched) Marks() account.Marks { return w.frame.Marks }

// Name is that of an SA which a frame before had a record of.
func (w *Watched) Name(handle uint32) string { return w.i.account.Name(handle) }
