package transport

import (
	"encoding/binary"
	"net/netip"
	"time"

	"tapsec/internal/audit"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Event is one line of the audit trail, with the fields that RFC 4301 section 4.4.2.1 and
// RFC 4303 sections 2.2, 3.4 ask for. There is no key and no payload in it. Unknown
// fields are zero.
type Event struct {
	Time     time.Time // of the frame's reception; zero where no annotation tells it
	Reason   Reason
	Check    status.Reason // what NIC or software found
	SA       string        // name
	Protocol sa.Protocol
	SPI      uint32
	Number   uint64 // sequence number, authentic unless Reason is ICV, Length or Protocol
	Src, Dst netip.Addr
	FlowID   uint32 // IPv6 flow label
	Once     bool   // this happened to the SA, not to a frame

	// Events of this Reason left out since the last one, to bound the rate. With Silent
	// this is only their number, and not an event itself.
	Suppressed uint64
	Silent     bool
}

// auditor reports drops at a bounded rate, for each reason and SA name.
type auditor struct {
	report func(Event)
	limit  audit.Limiter[string]
}

// notice reports what happened to an SA, without a bound, since it happens once.
func (a *auditor) notice(now int64, s *association, reason Reason) {
	if a.report != nil {
		a.report(Event{Time: time.Unix(0, now), Reason: reason, SA: s.Name, Protocol: s.Protocol, SPI: s.SPI,
			Number: s.known.Window().Top, Src: s.Src, Dst: s.Dst, Once: true})
	}
}

// silent reports how many events were left out, for reasons that no longer occur or for
// all.
func (a *auditor) silent(all bool) {
	a.limit.Silent(all, func(reason uint8, n uint64) {
		a.report(Event{Time: time.Now(), Reason: Reason(reason), Suppressed: n, Silent: true})
	})
}

// Flush tells Audit the number of all events left out so far.
func (r *Receiver) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.audit.silent(true)
}

// drop mirrors and audits a frame that is not delivered.
func (r *Receiver) drop(f *frame, reason Reason) {
	if reason.Failed() && r.mirror != nil {
		r.mirror(status.Annotate(f.delivered, f.annotation))
	}
	if reason.quiet() || r.audit.report == nil {
		return
	}
	name := ""
	if a := f.carrier(); a != nil {
		name = a.Name
	}
	suppressed, ok := r.audit.limit.Allow(uint8(reason), name)
	if !ok {
		return
	}
	e := Event{Reason: reason, Suppressed: suppressed}
	if reason != NoAnnotation {
		e.Time = time.Unix(0, r.now)
	}
	f.describe(&e)
	r.audit.report(e)
}

// describe fills in what is known of the packet, from the record at which the work ended,
// or else from what is left of the packet.
func (f *frame) describe(e *Event) {
	at := f.l3
	if a := f.carrier(); a != nil {
		e.SA, e.Protocol, e.SPI = a.Name, a.Protocol, a.SPI
	}
	if rec := f.failedRecord; rec != nil {
		e.Check, e.Protocol, e.SPI, e.Number = rec.Reason, sa.Protocol(rec.Protocol), rec.SPI, rec.Number
		at = int(rec.IP)
	}
	if at == 0 {
		return
	}
	p, ok := wire.Addresses(f.bytes, at)
	if !ok {
		return
	}
	e.Src, e.Dst = p.Src, p.Dst
	if p.Version == 6 {
		e.FlowID = binary.BigEndian.Uint32(f.bytes[p.Start:]) & 0xfffff
	}
	if at := spiAt(&p); f.failedRecord == nil && at > 0 && at+4 <= p.Reach {
		e.SA, e.Protocol, e.SPI = "", sa.Protocol(p.Proto), binary.BigEndian.Uint32(f.bytes[at:])
	}
}

// spiAt is where the SPI of a bare ESP or AH packet lies, 0 in any other.
func spiAt(p *wire.Packet) int {
	switch {
	case p.Later:
	case p.Proto == wire.ProtoESP:
		return p.Header
	case p.Proto == wire.ProtoAH:
		return p.Header + 4
	}
	return 0
}
