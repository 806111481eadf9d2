package inspect

import (
	"net/netip"

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
	met   map[uint32]bool // handles
	frame frame
	text  []byte // scratch: a comment
}

// Watch begins with frames of a NIC that holds the SAs of sad. The error is a filter's name
// that none of them has.
func Watch(f Filter, sad *pipeline.SAD) (*Watched, error) {
	if len(f.SAs) > 0 {
		if err := f.check(heldBy(sad.List()), nil); err != nil {
			return nil, err
		}
	}
	return &Watched{i: Inspector{opt: Options{Filter: f}, account: account.New(nil)}, sad: sad, met: map[uint32]bool{}}, nil
}

// Frame returns what is said of a frame, as the comment of a File's packet, if the filter
// takes it. came is the frame as it was received, body as it is delivered, without its
// trailer. The comment is valid until the next call.
func (w *Watched) Frame(came, body []byte, t *status.Trailer) (comment []byte, takes bool) {
	i := &w.i
	f := &w.frame
	w.meet(t)
	f.Info, f.src, f.dst = capture.Info{}, netip.Addr{}, netip.Addr{}
	if p, ok := account.OwnPacket(came); ok {
		f.src, f.dst = p.Src, p.Dst
	}
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

// meet makes the account follow SAs that this trailer is the first to mention. One that the
// NIC no longer has is called by its SPI.
func (w *Watched) meet(t *status.Trailer) {
	for _, rec := range t.Records[:t.N] {
		if w.met[rec.Handle] {
			continue
		}
		w.met[rec.Handle] = true
		one := w.sad.Holding(rec.Handle).SA
		if one == nil {
			one = unnamed(&rec)
		}
		w.i.account.Hold([]account.Held{{SA: one, Handle: rec.Handle}})
	}
}

// unnamed stands for the SA of a record of which nobody knows more.
func unnamed(rec *status.Record) *sa.SA {
	return &sa.SA{Name: sa.SPI(rec.SPI).String(), SPI: rec.SPI, Protocol: sa.Protocol(rec.Protocol), ReplayOff: true}
}
