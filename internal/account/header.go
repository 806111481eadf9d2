package account

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Header is an IPsec header for which the NIC held no SA. There is no record of it, so it is
// read from the frame. It is comparable.
type Header struct {
	Protocol sa.Protocol
	SPI      sa.SPI
	Src, Dst netip.Addr
	Encap    bool // in UDP
}

// String gives protocol, SPI and addresses.
func (h Header) String() string {
	return fmt.Sprintf("%s SPI %s from %s to %s", h.Protocol, h.SPI, h.Src, h.Dst)
}

// FrameOf is what is known of a frame that was delivered without its trailer, which stays the
// caller's. The addresses are those of its own packet as it came; missing is how many bytes at its end
// the capture lacks.
func FrameOf(body []byte, t *status.Trailer, src, dst netip.Addr, missing int) Frame {
	f := Frame{Trailer: t, Src: src, Dst: dst, body: body, Cut: missing > 0 && endsEarly(t)}
	f.Header, f.Number, f.HeaderIsNumbered, f.Unmatched = unmatched(body, t)
	return f
}

// endsEarly reports whether a frame's verdict may come of bytes that the capture lacks: it
// fails, or the SPI was not there to be looked up.
func endsEarly(t *status.Trailer) bool {
	switch t.Reason {
	case status.BadIPHeader, status.SPIOutside, status.UDPTooShort:
		return true
	}
	return t.Word.Code() != status.Success
}

// addresses are those of the packet that a record is about: the frame's own, or the one in its
// tunnel.
func (f *Frame) addresses(rec *status.Record) (src, dst netip.Addr) {
	p, inner := wire.Packet{}, rec.IP != f.Trailer.Records[0].IP
	switch {
	case inner && f.Trailer.Form == status.Decap:
		p, inner = OwnPacket(f.body)
	case inner:
		p, inner = wire.Addresses(f.body, int(rec.IP))
	}
	if inner {
		return p.Src, p.Dst
	}
	return f.Src, f.Dst
}

// Unmatched reports whether the trailer's reason is a header that no SA matched.
func Unmatched(t *status.Trailer) bool {
	switch t.Reason {
	case status.NoSA, status.AddressMismatch, status.EncapMismatch, status.SADeleted, status.UDPNoSA:
		return true
	}
	return false
}

// unmatched returns the header that no SA matched, if that is the trailer's reason, and its
// sequence number; numbered is false if that is cut off.
func unmatched(frame []byte, t *status.Trailer) (h Header, seq uint32, numbered, ok bool) {
	if !Unmatched(t) {
		return h, 0, false, false
	}
	p, ok := lastPacket(frame, t)
	if !ok {
		return h, 0, false, false
	}
	return HeaderOf(frame, &p)
}

// HeaderOf reads the AH or ESP header that p carries, directly or in UDP, and its sequence
// number; numbered is false if that is cut off. ok is false without an SPI.
func HeaderOf(frame []byte, p *wire.Packet) (h Header, seq uint32, numbered, ok bool) {
	at, be := p.Header, binary.BigEndian
	h = Header{Protocol: sa.Protocol(p.Proto), Src: p.Src, Dst: p.Dst}
	switch p.Proto {
	case wire.ProtoAH:
		at += 4 // the SPI is AH's second word
	case wire.ProtoUDP:
		at, h.Protocol, h.Encap = at+wire.UDPLen, sa.ESP, true
	}
	if at+4 > p.Reach {
		return h, 0, false, false
	}
	h.SPI = sa.SPI(be.Uint32(frame[at:]))
	if at+8 > p.Reach {
		return h, 0, false, true
	}
	return h, be.Uint32(frame[at+4:]), true, true
}

// lastPacket parses the packet at which the NIC stopped: the frame's own, or the
// one inside the tunnel that it opened in place.
func lastPacket(frame []byte, t *status.Trailer) (wire.Packet, bool) {
	if t.N == 0 || t.Form == status.Decap {
		return OwnPacket(frame)
	}
	return Inside(frame, &t.Records[t.N-1])
}

// Inside parses the packet that an opened tunnel carries.
func Inside(frame []byte, tunnel *status.Record) (wire.Packet, bool) {
	return wire.Within(frame, int(tunnel.Payload), int(tunnel.Payload)+int(tunnel.PayloadLen))
}

// Ends are the addresses of the frame's own packet; invalid if it has none.
func Ends(frame []byte) (src, dst netip.Addr) {
	if p, ok := OwnPacket(frame); ok {
		return p.Src, p.Dst
	}
	return src, dst
}

// OwnPacket parses the frame's own packet, not one inside a tunnel.
func OwnPacket(frame []byte) (wire.Packet, bool) {
	etherType, start, ok := wire.Ethernet(frame)
	version := wire.IPVersion(etherType)
	if !ok || version == 0 {
		return wire.Packet{}, false
	}
	p, err := wire.ParseIP(frame, start, len(frame), version)
	return p, err == nil
}
