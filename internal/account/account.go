// Package account follows each SA's sequence numbers over a capture: what came, what is
// lost, doubled, late, and which SA followed which. It reads the NIC's trailers. Headers that
// no SA matches are followed, too, since numbers need no key. The transport's own window says
// what a window refuses.
//
// It judges no frame, does no I/O, and is unsafe for concurrent use. Its memory is bounded,
// whatever comes: MaxUnknown headers without an SA, and pages for numbers out of sequence
// (knownPages, unknownPages).
package account

import (
	"net/netip"

	"tapsec/internal/replay"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// MaxUnknown is how many headers without an SA are followed. Beyond that, those with the
// fewest frames are counted together.
const MaxUnknown = 1 << 16

// Pages for numbers, of 128 bytes and some more for their map: 43 MB for all SAs together,
// 11 MB for all unknown headers. An SA that needs more forgets the lower half of its numbers,
// and is then not exact.
const (
	knownPages   = 1 << 18
	unknownPages = 1 << 16
)

// Account follows the SAs of one capture.
type Account struct {
	known   map[uint32]*sender // by handle
	unknown map[Header]*sender
	routes  map[route]*[heads]*sender // the latest senders between two addresses
	born    uint64                    // senders so far
	now     uint64                    // number of the frame

	forKnown, forUnknown int // pages left
	others               Others
}

// Others are the headers without an SA that were not followed to the end.
type Others struct {
	Headers uint64 `json:"headers"` // one that comes again is counted again
	Frames  uint64 `json:"frames"`
}

// New makes the account of a capture for a NIC that holds these SAs.
func New(held []pipeline.Holding) *Account {
	a := &Account{known: map[uint32]*sender{}, unknown: map[Header]*sender{}, routes: map[route]*[heads]*sender{},
		forKnown: knownPages, forUnknown: unknownPages}
	a.Hold(held)
	return a
}

// Hold tells the account which SAs the NIC holds from now on. It keeps those that it knows by
// their handles.
func (a *Account) Hold(held []pipeline.Holding) {
	for _, h := range held {
		if a.known[h.Handle] != nil {
			continue
		}
		s := &sender{sa: h.SA, handle: h.Handle, header: Header{h.Protocol, sa.SPI(h.SPI), h.Src, h.Dst, h.Encap}}
		s.came.budget, s.failing.budget = &a.forKnown, &a.forKnown
		a.known[h.Handle] = s
	}
}

// Name is that of the SA with a handle; empty if there is none.
func (a *Account) Name(handle uint32) string {
	if s := a.known[handle]; s != nil {
		return s.sa.Name
	}
	return ""
}

// Frame is what is known of one frame.
type Frame struct {
	Trailer  *status.Trailer
	Src, Dst netip.Addr // of its own packet, before headers were taken off
	Cut      bool       // the capture lacks its end, of which its verdict may come

	Unmatched        bool // a header that no SA matches
	Header           Header
	Number           uint32 // of that header
	HeaderIsNumbered bool

	body []byte // as it was delivered, without its trailer
}

// Marks are what an SA's window says of a frame. Both may be set.
type Marks struct {
	Replayed bool // the window of one of its SAs refuses it
	Late     bool // a number is new, but below the highest
}

// Frame counts a frame.
func (a *Account) Frame(f *Frame) (m Marks) {
	a.now++
	t := f.Trailer
	for i := range t.Records[:t.N] {
		rec := &t.Records[i]
		s := a.known[rec.Handle]
		if s == nil {
			continue // another program's trailer
		}
		if s.frames == 0 {
			src, dst := f.addresses(rec)
			a.begin(s, src, dst)
		}
		s.record(rec, f.Cut, &m)
		s.last = a.now
	}
	if f.Unmatched {
		a.miss(f)
	}
	return m
}

// miss counts a header that no SA matches. Only a wrap reveals extended numbers: nothing
// else does without a key.
func (a *Account) miss(f *Frame) {
	s := a.unknown[f.Header]
	if s == nil {
		if len(a.unknown) == MaxUnknown {
			a.sweep()
		}
		s = &sender{header: f.Header}
		s.came.budget = &a.forUnknown
		a.unknown[f.Header] = s
		a.begin(s, f.Header.Src, f.Header.Dst)
	}
	s.frames++
	s.leftAlone++
	s.last = a.now
	if f.HeaderIsNumbered {
		s.came.add(sa.Number(s.came.high, f.Number))
	}
}

// sweep counts at least half of the unknown headers together, those with the fewest frames.
func (a *Account) sweep() {
	for most := uint64(1); len(a.unknown) > MaxUnknown/2; most *= 2 {
		for h, s := range a.unknown {
			if s.frames <= most {
				a.others.Headers++
				a.others.Frames += s.frames
				s.came.free()
				s.before = [heads]before{}
				s.swept = true
				delete(a.unknown, h)
			}
		}
	}
	for r, last := range a.routes {
		n := 0
		for i, s := range last {
			if s != nil && s.swept {
				last[i], s = nil, nil
			}
			if s != nil {
				n++
			}
		}
		if n == 0 {
			delete(a.routes, r)
		}
	}
}

// sender is what one SA, or one header that none matches, has sent.
type sender struct {
	sa     *sa.SA // nil: none
	handle uint32
	header Header
	swept  bool

	frames, good, leftAlone, notJudged uint64
	failed                             map[status.Reason]uint64

	came     numbers // with a valid ICV, or of frames that nobody checked
	failing  numbers // of frames that failed
	proven   bool    // one of came had a valid ICV
	window   *replay.Window
	replayed uint64

	number uint64 // of this sender among all, by first frame
	last   uint64 // frame
	before [heads]before
}

// record counts what a record tells.
func (s *sender) record(rec *status.Record, cut bool, m *Marks) {
	s.frames++
	switch {
	case rec.State == status.NotProcessed:
		s.leftAlone++
	case rec.State == status.ICVValid:
		s.good++
	case rec.State == status.FailedBefore && cut:
		s.notJudged++
	default:
		if s.failed == nil {
			s.failed = map[status.Reason]uint64{}
		}
		s.failed[rec.Reason]++
	}
	switch {
	case rec.State == status.ICVValid, rec.State == status.FailedAfter:
		s.proven = true
		late := s.came.add(rec.Number)
		refused := !s.own().Accept(rec.Number)
		if refused {
			s.replayed++
		}
		m.Late, m.Replayed = m.Late || late, m.Replayed || refused
	case rec.Number == 0: // not all there
	case rec.State == status.FailedBefore && !cut, rec.Reason == status.NotTried:
		s.failing.add(rec.Number)
	default:
		s.came.add(rec.Number)
	}
}

// own is the SA's window. It starts empty: a running SA may have reached its present numbers
// by the very frames of the capture.
func (s *sender) own() *replay.Window {
	if s.window == nil {
		w := replay.Of(s.sa)
		s.window = &w
	}
	return s.window
}

// numbers are those of one sender.
type numbers struct {
	set
	duplicates, late, maxLate uint64
}

// add counts a number, and reports whether it is late, that is new and below the highest. 0
// is never late, since no window takes it.
func (n *numbers) add(number uint64) (late bool) {
	behind := uint64(0)
	if n.n > 0 && number > 0 && number < n.high {
		behind = n.high - number
	}
	switch {
	case !n.set.add(number):
		n.duplicates++
		return false
	case behind == 0:
		return false
	}
	n.late++
	n.maxLate = max(n.maxLate, behind)
	return true
}
