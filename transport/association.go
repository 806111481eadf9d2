package transport

import (
	"net/netip"

	"tapsec/internal/replay"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

type entry = sa.Entry[*association]

// association is what the transport knows of one inbound SA beside its keys.
type association struct {
	*entry
	window replay.Window
	usage  usage
	tally  Tally

	failures int   // ICV failures in a row
	retried  int64 // when its numbers were last sought further ahead
	released bool  // the NIC was asked to give it up
}

// Tally counts the frames of one SA.
type Tally struct {
	Packets, Bytes uint64             // carried, with a valid ICV and a fresh number; bytes of payload
	Dropped        [NumReasons]uint64 // by reason; the innermost SA that came in sight counts it
}

// associate makes the entry of an SA. Where it is the same SA still its
// association goes on, in a window of another size if it is to have one.
func (r *Receiver) associate(s *sa.SA, began int64) *entry {
	e := &entry{SA: s, Mark: r.fallback.Mark(s.ID())}
	e.Value = &association{window: windowOf(s), usage: usage{Since: began}}
	old := r.sas.Find(s.ID())
	if old == nil || !old.Same(s) {
		return e
	}
	if was := old.Value; was.window.Size() == e.Value.window.Size() {
		e.Value = was
	} else {
		e.Value.adopt(was)
	}
	return e
}

// adopt has a take over what is known of the SA so far.
func (a *association) adopt(was *association) {
	if err := a.window.Restore(was.window.Snapshot()); err != nil {
		panic("transport: a window that makes no sense: " + err.Error())
	}
	a.usage, a.tally, a.failures, a.retried = was.usage, was.tally, was.failures, was.retried
}

func windowOf(s *sa.SA) replay.Window {
	if s.ReplayOff {
		return replay.Off()
	}
	return replay.New(s.Window)
}

// find is the SA of a record: protocol, SPI, and the addresses of the IP header
// that it names.
func (r *Receiver) find(f *frame, rec *status.Record) *association {
	p, ok := wire.Addresses(f.bytes, int(rec.IP))
	if !ok {
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

// shadowed reports whether the NIC may take a packet of a for that of another SA,
// which matches more packets, where it does not hold a.
func (r *Receiver) shadowed(a *association) bool {
	dst, any := a.ID(), a.ID()
	dst.Src = netip.Addr{}
	any.Src, any.Dst = netip.Addr{}, netip.Addr{}
	return a.Src.IsValid() && r.sas.Find(dst) != nil || a.Dst.IsValid() && r.sas.Find(any) != nil
}

// isLocal reports whether an address is one of ours.
func (r *Receiver) isLocal(a netip.Addr) bool { return r.anywhere || r.local[a] }
