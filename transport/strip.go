package transport

import (
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// strip takes off the headers whose records remain, outermost first, and holds
// what lies beneath each against its SA's selector (RFC 4301 section 5.2,
// contract, The transport, step 5). Offsets of records are those of the frame as annotated; gone
// are the bytes taken off in front of them.
func (c *Consumer) strip() Reason {
	gone := 0
	for i := range c.trailer.N {
		gap, reason := c.off(&c.trailer.Records[i], c.entries[i], gone)
		if reason != None {
			return reason
		}
		gone += gap
	}
	c.trailer.N = 0
	return None
}

// off takes off the outermost header, and tells how far what it protected lay
// behind its new place.
func (c *Consumer) off(r *status.Record, a *association, gone int) (gap int, _ Reason) {
	p, reason := c.packet()
	if reason != None {
		return 0, reason
	}
	header, payload, n := int(r.IPsec)-gone, int(r.Payload)-gone, int(r.PayloadLen)
	if a.Encap {
		header -= wire.UDPLen
	}
	if header != p.Header || payload+n > p.End {
		return 0, BadAnnotation
	}
	switch {
	case r.NextHeader == wire.ProtoNoNext:
		return 0, Dummy
	case a.Mode == sa.Tunnel && !bundled(a):
		return c.offTunnel(p, payload, n, r.NextHeader, a)
	}
	c.frame, p = wire.StripTransport(c.frame, p, payload, n, r.NextHeader)
	if a.Encap {
		wire.UpperSum(c.frame, p)
	}
	if !bundled(a) {
		c.beneath(a, p)
	}
	return payload - header, None
}

// offTunnel leaves the packet that the tunnel carried, cut to its own length.
func (c *Consumer) offTunnel(outer wire.Packet, payload, n int, next uint8, a *association) (gap int, _ Reason) {
	version := uint8(4)
	switch next {
	case wire.ProtoIPv4:
	case wire.ProtoIPv6:
		version = 6
	default:
		return 0, InnerNotIP
	}
	inner, err := wire.ParseIP(c.frame, payload, payload+n, version)
	if err != nil || inner.Short {
		return 0, InnerNotIP
	}
	if !wire.Decapsulate(c.frame, outer, inner) {
		c.refuse(ECN)
	}
	c.beneath(a, inner)
	c.frame = wire.StripTunnel(c.frame, c.l3, inner)
	return payload - c.l3, None
}

// beneath holds the packet directly beneath SA a, and beneath the AH that it
// may be bundled with, against their selectors.
func (c *Consumer) beneath(a *association, p wire.Packet) {
	if !selects(a.Selector, c.frame, &p) || a.Partner != nil && !selects(a.Partner.Selector, c.frame, &p) {
		c.refuse(Selector)
	}
}

// packet parses the frame's IP packet, which is of the version that the EtherType
// announces. One with a wrong header checksum will not be delivered.
func (c *Consumer) packet() (wire.Packet, Reason) {
	p, ok := wire.Addresses(c.frame, c.l3)
	if !ok || p.Short || (c.frame[c.l3-2] == 0x86) != (p.Version == 6) {
		return p, BadIP
	}
	if !wire.HeaderSum(c.frame, p) {
		c.refuse(IPChecksum)
	}
	return p, None
}
