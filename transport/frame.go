package transport

import (
	"encoding/binary"

	"tapsec/status"
	"tapsec/wire"
)

// frame is the frame in work.
type frame struct {
	annotated []byte // with trailer, as it came last: from the NIC, or from software
	bytes     []byte // what is left of it, without trailer
	l3        int    // offset after the EtherType; 0 where there is no IP packet

	trailer status.Trailer
	sas     [status.MaxRecords]*association // of the trailer's records

	carriedBy    []*association // the SAs that carried what is left, outermost first
	inSoftware   bool           // software did some of it
	failedRecord *status.Record // the record at which the work ended
	nicBehind    *association   // the SA whose number the NIC has not completed as we would
	guess        esnGuess       // what software is to presume of the number in front
	refused      Reason         // why it will not be delivered although the work goes on
}

// readAnnotation takes the annotation off a frame that comes from the NIC. Where
// there is none the time is the frame's before.
func (r *Receiver) readAnnotation(f *frame) Reason {
	body, t, err := status.Split(f.annotated)
	if err != nil {
		return NoAnnotation
	}
	r.now = t.Received
	if t.Form != status.InPlace {
		return Decapsulated
	}
	return f.begin(f.annotated, body, &t)
}

// begin begins the work on what an annotation says.
func (f *frame) begin(annotated, body []byte, t *status.Trailer) Reason {
	f.annotated, f.trailer, f.failedRecord = annotated, *t, nil
	if !agrees(t, len(body)) {
		return BadAnnotation
	}
	f.bytes = body[:t.WireLen]
	etherType, l3, ok := wire.Ethernet(f.bytes)
	switch {
	case !ok || wire.MayHideIP(etherType):
		return Hidden
	case etherType == wire.EtherIPv4 || etherType == wire.EtherIPv6:
		f.l3 = l3
	case t.N > 0:
		return BadAnnotation
	}
	return None
}

// packet parses the frame's IP packet, which is of the version that the EtherType
// announces. One with a wrong header checksum will not be delivered.
func (f *frame) packet() (wire.Packet, Reason) {
	p, ok := wire.Addresses(f.bytes, f.l3)
	announced6 := binary.BigEndian.Uint16(f.bytes[f.l3-2:]) == wire.EtherIPv6
	switch {
	case !ok && p.Fragment && !p.Later:
		return p, ShortChain
	case !ok || p.Short || announced6 != (p.Version == 6):
		return p, BadIP
	}
	if !wire.HeaderSum(f.bytes, p) {
		f.refuse(IPChecksum)
	}
	return p, None
}

// refuse notes why the frame will not be delivered. The work goes on, since
// numbers further in have to reach their windows, wherever they are opened.
func (f *frame) refuse(reason Reason) {
	if f.refused == None {
		f.refused = reason
	}
}

// countDropOn makes a the SA that the frame's drop is counted on.
func (f *frame) countDropOn(a *association) {
	if n := len(f.carriedBy); n == 0 || f.carriedBy[n-1] != a {
		f.carriedBy = append(f.carriedBy, a)
	}
}

// carrier is the innermost SA that carried the frame, nil where none did.
func (f *frame) carrier() *association {
	if n := len(f.carriedBy); n > 0 {
		return f.carriedBy[n-1]
	}
	return nil
}

// checkSelector holds the packet directly beneath SA a, and beneath the AH that
// it may be bundled with, against their selectors.
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
