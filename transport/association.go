package transport

import (
	"net/netip"
	"time"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

type entry = sa.Entry[*association]

// association is what the transport knows of one inbound SA, apart from its keys.
type association struct {
	*entry
	known *ledger.Inbound // its window, and how much of its lifetime is used

	packets, bytes uint64 // as Tally has them
	*trouble              // nil while there is none, as for most of many SAs

	announced bool // that the soft lifetime is over
	released  bool // the NIC was asked to give it up
}

// trouble is what went wrong with an SA's frames.
type trouble struct {
	dropped  [NumReasons]uint64
	failures int           // ICV failures in a row
	retried  time.Duration // when higher numbers were last tried, 0 for never

	failed, untold uint64 // frames; of these, those since Failures was last called
	why            Reason // the latest of them
}

// Tally counts the frames of one SA.
type Tally struct {
	Packets, Bytes uint64             // carried, with a valid ICV and a fresh number; bytes of payload
	Dropped        [NumReasons]uint64 // by reason, on the innermost SA reached
}

// troubled is an association with memory for trouble.
func (a *association) troubled() *association {
	if a.trouble == nil {
		a.trouble = new(trouble)
	}
	return a
}

func (a *association) drop(reason Reason) { a.troubled().dropped[reason]++ }

func (a *association) tally() Tally {
	t := Tally{Packets: a.packets, Bytes: a.bytes}
	if a.trouble != nil {
		t.Dropped = a.dropped
	}
	return t
}

// associate makes the entry of an SA. An unchanged SA keeps its association.
func (r *Receiver) associate(s *sa.SA) *entry {
	e := &entry{SA: s, Mark: r.fallback.Mark(s.ID())}
	old := r.sas.Find(s.ID())
	if old != nil && old.Same(s) { // the ledger compares less than this
		e.Value = old.Value
		return e
	}
	e.Value = &association{known: r.ledger.Inbound(s)}
	if old != nil && old.Value.known == e.Value.known {
		e.Value = old.Value
	}
	return e
}

// find is the SA of a record, by protocol, SPI, and the addresses of the record's IP
// header.
func (r *Receiver) find(f *frame, rec *status.Record) *association {
	var p wire.Packet
	at := int(rec.IP)
	if p.ParseIP(f.bytes, at, len(f.bytes), f.bytes[at]>>4) != nil {
		return nil
	}
	encap := p.Proto == wire.ProtoUDP
	return r.lookup(sa.Protocol(rec.Protocol), rec.SPI, p.Dst, p.Src, encap)
}

func (r *Receiver) lookup(protocol sa.Protocol, spi uint32, dst, src netip.Addr, encap bool) *association {
	m := r.sas.Lookup(spi, dst, src, encap)
	e := m.ESP
	if protocol == sa.AH {
		e = m.AH
	}
	if e == nil {
		return nil
	}
	return e.Value
}

// shadowed reports whether a NIC that does not hold a may take its packets for those of
// another SA that matches more packets.
func (r *Receiver) shadowed(a *association) bool {
	dst, any := a.ID(), a.ID()
	dst.Src = netip.Addr{}
	any.Src, any.Dst = netip.Addr{}, netip.Addr{}
	return a.Src.IsValid() && r.sas.Find(dst) != nil || a.Dst.IsValid() && r.sas.Find(any) != nil
}

// isLocal reports whether an address is one of ours.
func (r *Receiver) isLocal(a netip.Addr) bool { return r.anywhere || r.local[a] }
