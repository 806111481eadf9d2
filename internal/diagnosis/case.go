// Package diagnosis finds out why the frames of an SA fail. It keeps a few of them,
// and tries near misses: what the SA, its keys or the frame would have been like
// if one thing had gone wrong. A near miss under which the ICV verifies is certain.
//
// A trial is the product's own pipeline with an SA for the trial, so that nothing
// here knows cryptography. Work and memory are bounded: MaxTries trials an SA and
// MaxTriesInAll, MaxUnknown headers that no SA matches, and MaxBytes of frames.
// Frames that are good cost a counter, but for the first few, whose checksums are
// looked at. A Case is unsafe for concurrent use, and never shows a key.
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
	MaxTries      = 2048     // trials for one SA, each of a frame by one near miss
	MaxTriesInAll = 1 << 20  // and for all
	MaxUnknown    = 256      // headers without an SA that are told apart
	MaxBytes      = 32 << 20 // of all frames that are kept

	looked = 8 // good frames of an SA of which the inside is looked at
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
	failing   *subject // that of the latest tunnel frame whose ESP failed
}

// subject is what was seen of one SA, or of one header that matches none.
type subject struct {
	sa           *sa.SA // nil: none
	header       account.Header
	good, failed int
	cut          int // of those that failed: frames whose ends are missing
	last         int // of those that failed: how many have come since the last good one
	samples      samples

	insides  int // good frames of which the inside was looked at
	sums     [wire.SumWrong + 1]int
	portion  status.Portion // that they are
	foreign  int            // of insides: those that are the other mode's
	next     uint8
	shown    shown
	findings []account.Finding
	done     bool
}

// New makes a Case of frames that a NIC judges which holds these SAs. Keys of
// former are tried, too: other ones that a text gives for the same identities.
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

// Hold tells the Case of SAs that the NIC holds from now on.
func (d *Case) Hold(held []pipeline.Holding) {
	for _, h := range held {
		d.held[h.Handle] = h.SA
	}
}

// called is what people call an SA.
func (d *Case) called(s *sa.SA) string { return cmp.Or(s.Name, s.ID().String()) }

// See takes notice of one delivered frame, without its trailer, of what is known of
// it, and of its number in the capture.
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
	default:
		s.failed, s.last = s.failed+1, s.last+1
		s.samples.keep(frame, t, rec, &d.room)
	}
}

// miss takes notice of a frame without an SA.
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
	case isIP != (rec.Portion == status.TunnelPortion):
		s.foreign++
		s.next = rec.NextHeader
	}
	s.sums[wire.CheckUpperSum(frame, p)]++
}

// Findings is what was found out about the SA with a handle, or, where that is 0,
// about frames with a header that no SA matches. Near misses are tried at the first
// call.
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
