package transport

import (
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// strip takes off the headers whose records remain, outermost first, and compares what
// lies beneath each with its SA's selector (RFC 4301 section 5.2; contract, The transport,
// step 5). Records have the offsets of the annotated frame, so removed counts the bytes
// taken off so far.
func (f *frame) strip() Reason {
	removed := 0
	for i := range f.records {
		n, reason := f.stripHeader(&f.records[i], f.sas[i], removed)
		if reason != None {
			return reason
		}
		removed += n
	}
	return None
}

// stripHeader takes off the outermost header, and returns its length.
func (f *frame) stripHeader(rec *status.Record, a *association, removed int) (n int, _ Reason) {
	p, reason := f.packet()
	if reason != None {
		return 0, reason
	}
	header, payload, length := int(rec.IPsec)-removed, int(rec.Payload)-removed, int(rec.PayloadLen)
	if a.Encap {
		header -= wire.UDPLen
	}
	if header != p.Header || payload+length > p.End {
		return 0, BadAnnotation
	}
	switch {
	case rec.NextHeader == wire.ProtoNoNext:
		return 0, Dummy
	case a.Mode.Of(rec.NextHeader) == sa.Tunnel && !isBundledAH(a):
		return f.decapsulate(p, payload, length, rec.NextHeader, a)
	}
	f.bytes = wire.StripTransport(f.bytes, p, payload, length, rec.NextHeader)
	f.parsed = p.Version == 4 // in IPv6 further extension headers may follow
	if a.Encap {
		wire.UpperSum(f.bytes, p)
	}
	if !isBundledAH(a) {
		f.checkSelector(a, p)
	}
	return payload - header, None
}

// decapsulate leaves the packet that the tunnel carried, cut to its own length.
func (f *frame) decapsulate(outer *wire.Packet, payload, length int, next uint8, a *association) (n int, _ Reason) {
	version := uint8(4)
	switch next {
	case wire.ProtoIPv4:
	case wire.ProtoIPv6:
		version = 6
	default:
		return 0, InnerNotIP
	}
	var inner wire.Packet
	if inner.ParseIP(f.bytes, payload, payload+length, version) != nil || inner.Short {
		return 0, InnerNotIP
	}
	if !wire.PropagateECN(f.bytes, outer, &inner) {
		f.refuse(ECN)
	}
	f.checkSelector(a, &inner)
	f.bytes, f.parsed = wire.StripTunnel(f.bytes, f.l3, &inner), false
	return payload - f.l3, None
}

// isBundledAH reports whether a is the AH of a bundle, whose ESP ends the
// portion.
func isBundledAH(a *association) bool { return a.Protocol == sa.AH && a.Partner != nil }
