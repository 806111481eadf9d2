package transport

import (
	"encoding/binary"

	"tapsec/status"
	"tapsec/wire"
)

// frame is the frame being judged.
type frame struct {
	delivered  []byte          // as it last came from the NIC or from software
	annotation *status.Trailer // by that one
	bytes      []byte          // what is left of it
	l3         int             // offset after the EtherType; 0 if there is no IP packet
	ip         wire.Packet     // the packet there, while parsed
	parsed     bool

	records []status.Record                 // of the annotation: those of headers to take off
	sas     [status.MaxRecords]*association // theirs

	carriedBy    []*association // the SAs that carried what is left, outermost first
	inSoftware   bool           // software did part of the work
	failedRecord *status.Record // the record at which the work ended
	nicBehind    *association   // the SA whose number the NIC completed differently than we would
	guess        esnGuess       // high halves that software is to try for the outermost header
	refused      Reason         // why it will not be delivered, although the work continues
}

// readTrailer is the Check of frames from a NIC in another process. It takes off the
// trailer, and the padding before that.
func (r *Receiver) readTrailer(frame []byte) ([]byte, *status.Trailer) {
	body, t, err := status.Split(frame)
	if err != nil {
		return frame, nil
	}
	if r.read = t; len(body) == status.MinFrame {
		body = body[:min(len(body), int(t.WireLen))]
	}
	return body, &r.read
}

// readAnnotation begins with a frame from the NIC. Without an annotation the time stays
// that of the previous frame.
func (r *Receiver) readAnnotation(f *frame, delivered []byte, t *status.Trailer) Reason {
	if t == nil {
		return NoAnnotation
	}
	r.now = t.Received
	if t.Form != status.InPlace {
		return Decapsulated
	}
	return f.begin(delivered, t)
}

// begin begins the work on a frame from the NIC or from software.
func (f *frame) begin(delivered []byte, t *status.Trailer) Reason {
	f.delivered, f.annotation, f.failedRecord, f.parsed = delivered, t, nil, false
	if !agrees(t, len(delivered)) {
		return BadAnnotation
	}
	f.bytes, f.records = delivered, t.Records[:t.N]
	etherType, l3, ok := wire.Ethernet(f.bytes)
	switch {
	case !ok || wire.MayHideIP(etherType, f.bytes[l3:]):
		return Hidden
	case wire.IPVersion(etherType) != 0:
		f.l3 = l3
	case t.N > 0:
		return BadAnnotation
	}
	return None
}

// packet parses the frame's IP packet, which must have the version that the EtherType
// announces. A packet with a wrong header checksum will not be delivered.
func (f *frame) packet() (*wire.Packet, Reason) {
	p := &f.ip
	if f.parsed {
		return p, None
	}
	version := wire.IPVersion(binary.BigEndian.Uint16(f.bytes[f.l3-2:]))
	err := p.ParseIP(f.bytes, f.l3, len(f.bytes), version)
	switch {
	case err != nil && p.Fragment && !p.Later:
		return p, ShortChain
	case err != nil || p.Short:
		return p, BadIP
	}
	if !wire.HeaderSum(f.bytes, p) {
		f.refuse(IPChecksum)
	}
	f.parsed = true
	return p, None
}

// refuse notes why the frame will not be delivered. The work continues, since the numbers
// of inner headers have to reach their windows, whoever opens those headers.
func (f *frame) refuse(reason Reason) {
	if f.refused == None {
		f.refused = reason
	}
}

// countDropOn makes a the SA on which the frame's drop is counted.
func (f *frame) countDropOn(a *association) {
	if n := len(f.carriedBy); n == 0 || f.carriedBy[n-1] != a {
		f.carriedBy = append(f.carriedBy, a)
	}
}

// carrier is the innermost SA that carried the frame, nil if none did.
func (f *frame) carrier() *association {
	if n := len(f.carriedBy); n > 0 {
		return f.carriedBy[n-1]
	}
	return nil
}

// checkSelector compares the packet directly beneath SA a with a's selector, and that of
// the AH that a may be bundled with.
func (f *frame) checkSelector(a *association, p *wire.Packet) {
	if a.Selector == nil && (a.Partner == nil || a.Partner.Selector == nil) {
		return
	}
	if wire.ShortChain(f.bytes, p) {
		f.refuse(ShortChain)
		return
	}
	flow := wire.FlowOf(f.bytes, p)
	if !a.Selector.Matches(&flow) || a.Partner != nil && !a.Partner.Selector.Matches(&flow) {
		f.refuse(Selector)
	}
}
