// Package diagnosis finds out why the frames of an SA fail. It keeps a few of them and tries
// near misses: SAs, keys and frames that differ in one thing which may have gone wrong. If
// the ICV then verifies, the cause is certain.
//
// A trial runs the product's own pipeline with an SA for the trial, so nothing here knows
// cryptography. Work and memory are bounded: MaxTries trials for an SA and MaxTriesInAll,
// MaxUnknown headers that no SA matches, and MaxBytes of frames. Good frames cost a counter;
// of the first few the inside is looked at. A Case is unsafe for concurrent use, and never
// shows a key.
package diagnosis

import (
	"cmp"
	"slices"

	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// The bounds.
const (
	MaxTries      = 2048     // trials for one SA, each of one near miss on one frame
	MaxTriesInAll = 1 << 20  // trials for all SAs
	MaxUnknown    = 256      // headers without an SA that are distinguished
	MaxBytes      = 32 << 20 // of all frames that are kept

	looked = 8 // good frames of an SA whose inside is looked at
)

// Case gathers what is known of failing frames.
type Case struct {
	held    map[uint32]*sa.SA // by handle
	all     []*sa.SA          // whose keys are tried
	known   map[uint32]*subject
	unknown map[account.Header]*subject
	room    int // bytes that may still be kept
	tries   int // trials that may still be made

	addresses addresses
	trial     *trial
	twins     *twins
	failing   *subject // of the latest tunnel frame whose ESP failed
}

// subject is what was seen of one SA, or of one header that matches none.
type subject struct {
	sa           *sa.SA // nil: none
	header       account.Header
	good, failed int
	cut          int // failed frames whose ends are missing
	ending       int // of those, not by what the capture says of itself
	last         int // failed frames since the last good one
	samples      samples

	insides  int // good frames whose inside was looked at
	sums     [wire.SumWrong + 1]int
	portion  status.Portion // of the good frames
	foreign  int            // insides that belong to the other mode
	next     uint8
	shown    shown
	findings []account.Finding
	done     bool
}

// New makes a Case for the frames of a NIC that holds these SAs. The keys of former SAs are
// tried, too: those that a text gives for identities which have newer ones.
func New(held []pipeline.Holding, former []*sa.SA) *Case {
	d := &Case{held: map[uint32]*sa.SA{}, known: map[uint32]*subject{}, unknown: map[account.Header]*subject{}, room: MaxBytes, tries: MaxTriesInAll}
	for _, h := range held {
		d.held[h.Handle] = h.SA
		d.all = append(d.all, h.SA)
	}
	d.trial, d.twins = newTrial(), newTwins()
	slices.SortFunc(d.all, func(a, b *sa.SA) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.SPI, b.SPI), a.Dst.Compare(b.Dst), a.Src.Compare(b.Src))
	})
	for _, s := range d.all[:min(len(d.all), maxAddresses)] {
		if s.Protocol == sa.AH {
			d.addresses.add(s.Src, s.Dst)
		}
	}
	d.all = append(d.all, former...)
	return d
}

// Hold tells the Case which SAs the NIC holds from now on.
func (d *Case) Hold(held []pipeline.Holding) {
	for _, h := range held {
		d.held[h.Handle] = h.SA
	}
}

// called is an SA's name for people.
func (d *Case) called(s *sa.SA) string { return cmp.Or(s.Name, s.ID().String()) }

// See looks at one delivered frame without its trailer; f is what is known of it, number its
// number in the capture.
func (d *Case) See(frame []byte, f *account.Frame, number int) {
	t := f.Trailer
	if t.Reason == status.NoIPsec {
		d.clear(frame, number)
		return
	}
	for i := range t.Records[:t.N] {
		rec := &t.Records[i]
		if rec.State == status.ICVValid || rec.Code != status.Success {
			d.record(frame, f, rec, number)
		}
	}
	if f.Unmatched {
		d.miss(frame, t, f.Header)
	}
}

func (d *Case) record(frame []byte, f *account.Frame, rec *status.Record, number int) {
	t := f.Trailer
	s := d.known[rec.Handle]
	if s == nil {
		held := d.held[rec.Handle]
		if held == nil {
			return // another program's trailer
		}
		s = &subject{sa: held}
		d.known[rec.Handle] = s
	}
	if sa.Protocol(rec.Protocol) == sa.AH {
		if p, ok := wire.Addresses(frame, int(rec.IP)); ok && t.Form == status.InPlace {
			d.addresses.add(p.Src, p.Dst)
		}
	}
	d.pair(s, frame, f, rec, number)
	switch {
	case rec.State == status.ICVValid:
		s.good, s.last = s.good+1, 0
		if s.insides < looked && rec == &t.Records[t.N-1] {
			s.look(frame, t, rec)
		}
	case f.Cut || rec.Reason == status.IPLength:
		s.failed, s.cut = s.failed+1, s.cut+1
		if !f.Cut {
			s.ending++
		}
	default:
		s.failed, s.last = s.failed+1, s.last+1
		s.samples.keep(frame, t, rec, &d.room)
	}
}

// miss looks at a frame without an SA.
func (d *Case) miss(frame []byte, t *status.Trailer, h account.Header) {
	s := d.unknown[h]
	if s == nil {
		if len(d.unknown) == MaxUnknown {
			return
		}
		s = &subject{header: h}
		d.unknown[h] = s
	}
	s.failed++
	s.samples.keep(frame, t, nil, &d.room)
}

// look looks at what the innermost header of a good frame protects.
func (s *subject) look(frame []byte, t *status.Trailer, rec *status.Record) {
	s.insides, s.portion = s.insides+1, rec.Portion
	p, ok := account.OwnPacket(frame)
	if t.Removed == 0 {
		p, ok = carried(frame, rec)
	}
	isIP := rec.NextHeader == wire.ProtoIPv4 || rec.NextHeader == wire.ProtoIPv6
	switch {
	case rec.NextHeader == wire.ProtoNoNext || !ok:
		return
	case isIP != (rec.Portion == status.TunnelPortion), rec.NextHeader == wire.ProtoAggFrag:
		s.foreign++
		s.next = rec.NextHeader
	}
	s.sums[wire.CheckUpperSum(frame, &p)]++
}

// Findings is what was found out about the SA with a handle, or with 0 about frames with a
// header that no SA matches. The first call tries near misses.
func (d *Case) Findings(handle uint32, h account.Header) []account.Finding {
	s := d.known[handle]
	if handle == 0 {
		s = d.unknown[h]
	}
	if s == nil {
		return nil
	}
	return d.of(s)
}
