// Package report makes one HTML page of what happened to the frames of a capture: how many
// over time, an account of each SA, its numbers against time with the window, and some
// failures explained. The page loads nothing and runs no script.
//
// Its memory is bounded, whatever the capture: times and numbers are thinned out as more come
// in.
package report

import (
	"time"

	"tapsec/internal/account"
	"tapsec/internal/inspect"
	"tapsec/status"
)

// Bounds of what is kept and drawn.
const (
	maxBins      = 120 // of time
	maxPoints    = 800 // good frames of an SA
	maxNotable   = 400 // other frames of an SA
	maxTracks    = 1000
	maxDrawn     = 24
	maxExplained = 20
	maxStrays    = 100 // headers that no SA matches
)

// Report gathers what the page shows. It is unsafe for concurrent use.
type Report struct {
	bins      bins
	tracks    map[uint32]*track // by the SA's handle
	explain   []int
	explained map[failure]bool
}

// failure is what one explanation stands for.
type failure struct {
	handle uint32
	reason status.Reason
}

// New makes an empty report.
func New() *Report {
	return &Report{tracks: map[uint32]*track{}, explained: map[failure]bool{}}
}

// Watch notes a frame.
func (r *Report) Watch(s *inspect.Seen) {
	r.bins.add(s.Time, s.Verdict)
	t := s.Trailer
	for i := range t.Records[:t.N] {
		rec := &t.Records[i]
		k := r.tracks[rec.Handle]
		if k == nil {
			if len(r.tracks) == maxTracks {
				continue
			}
			k = &track{name: s.Name(rec.Handle), step: 1}
			r.tracks[rec.Handle] = k
		}
		k.add(s, rec)
	}
	r.choose(s)
}

// choose selects the first failure of each kind to be explained.
func (r *Report) choose(s *inspect.Seen) {
	t := s.Trailer
	if len(r.explain) == maxExplained || t.Word.Code() == status.Success && (t.Word.Done() || !t.Reason.OfIPsec()) {
		return
	}
	f := failure{reason: t.Reason}
	if t.N > 0 {
		f.handle = t.Records[t.N-1].Handle
	}
	if !r.explained[f] {
		r.explained[f] = true
		r.explain = append(r.explain, s.Number)
	}
}

// Explain returns the numbers of the frames that the page is to explain.
func (r *Report) Explain() []int { return r.explain }

// stacked are the verdicts in the order in which they are stacked.
var stacked = []account.Verdict{account.GoodBoth, account.Good, account.LeftAlone, account.NotJudged, account.Failed}

// bins counts frames by time. The bins' width doubles whenever there would be too many.
type bins struct {
	from  time.Time
	width time.Duration
	count [][account.NumVerdicts]uint64
}

func (b *bins) add(at time.Time, verdict account.Verdict) {
	if at.IsZero() {
		return
	}
	if b.count == nil {
		b.from, b.width = at, time.Millisecond
	}
	if off := at.Sub(b.from); off > far || off < -far {
		return
	}
	b.begin(at)
	n := int64(at.Sub(b.from) / b.width)
	for n >= maxBins {
		b.halve()
		n /= 2
	}
	for int64(len(b.count)) <= n {
		b.count = append(b.count, [account.NumVerdicts]uint64{})
	}
	b.count[n][verdict]++
}

// far is how long before and after the first frame others have bins.
const far = 100 * 365 * 24 * time.Hour

// begin makes bins for a time before the first one.
func (b *bins) begin(at time.Time) {
	for at.Before(b.from) {
		more := int64(b.from.Sub(at)/b.width) + 1
		if int64(len(b.count))+more > maxBins {
			b.halve()
			continue
		}
		b.count = append(make([][account.NumVerdicts]uint64, more), b.count...)
		b.from = b.from.Add(-time.Duration(more) * b.width)
	}
}

func (b *bins) halve() {
	for i := range b.count {
		if i%2 == 0 {
			b.count[i/2] = b.count[i]
			continue
		}
		for v, n := range b.count[i] {
			b.count[i/2][v] += n
		}
	}
	b.count = b.count[:(len(b.count)+1)/2]
	b.width *= 2
}

// track is the numbers of one SA against time.
type track struct {
	name    string
	frames  uint64
	step    uint64  // one point for this many good frames
	points  []point // good
	tops    []point // the highest number at the same times
	notable []point
	missing uint64 // notable frames that are not drawn
	top     uint64
}

type point struct {
	at      time.Time
	number  uint64
	frame   int
	verdict string
}

func (k *track) add(s *inspect.Seen, rec *status.Record) {
	k.frames++
	p := point{s.Time, rec.Number, s.Number, verdict(s, rec).String()}
	if rec.State == status.ICVValid {
		k.top = max(k.top, rec.Number)
	}
	switch {
	case s.Replayed:
		p.verdict = "replayed"
	case rec.Reason.Failed():
	case s.Late:
		p.verdict = "late"
	default:
		k.good(p)
		return
	}
	if len(k.notable) == maxNotable {
		k.missing++
		return
	}
	k.notable = append(k.notable, p)
}

// verdict is that of one of a frame's records: where one portion fails the other may be good.
func verdict(s *inspect.Seen, rec *status.Record) account.Verdict {
	switch {
	case rec.Reason.Failed() && s.Verdict != account.NotJudged:
		return account.Failed
	case rec.Reason.Failed():
		return account.NotJudged
	case rec.State == status.NotProcessed:
		return account.LeftAlone
	case s.Trailer.Word.Code() != status.Success:
		return account.Good
	}
	return s.Verdict
}

// good keeps one point of several, and drops every other point whenever there are too many.
func (k *track) good(p point) {
	if k.frames%k.step != 0 {
		return
	}
	if len(k.points) == maxPoints {
		k.points, k.tops = everySecond(k.points), everySecond(k.tops)
		k.step *= 2
	}
	k.points = append(k.points, p)
	k.tops = append(k.tops, point{at: p.at, number: k.top})
}

func everySecond(all []point) []point {
	for i := range all[:(len(all)+1)/2] {
		all[i] = all[2*i]
	}
	return all[:(len(all)+1)/2]
}
