package diagnosis

import (
	"encoding/binary"

	"tapsec/internal/account"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// header is an IPsec header as it came.
type header struct {
	account.Header
	encap bool
}

// headerOf reads the AH or ESP header that p carries, at once or in UDP, and the
// number in it, 0 where that is not there. ok is false where the SPI is not.
func headerOf(frame []byte, p *wire.Packet) (h header, seq uint32, ok bool) {
	at := p.Header
	h.Header = account.Header{Protocol: sa.Protocol(p.Proto), Src: p.Src, Dst: p.Dst}
	switch p.Proto {
	case wire.ProtoAH:
		at += 4 // the SPI is AH's second word
	case wire.ProtoUDP:
		at += wire.UDPLen
		h.Protocol, h.encap = sa.ESP, true
	}
	if at+4 > p.Reach {
		return h, 0, false
	}
	be := binary.BigEndian
	h.SPI = sa.SPI(be.Uint32(frame[at:]))
	if at+8 <= p.Reach {
		seq = be.Uint32(frame[at+4:])
	}
	return h, seq, true
}

// insideOf parses the packet that an opened tunnel carries.
func insideOf(frame []byte, tunnel *status.Record) (wire.Packet, bool) {
	start, end := int(tunnel.Payload), int(tunnel.Payload)+int(tunnel.PayloadLen)
	if start >= end || end > len(frame) {
		return wire.Packet{}, false
	}
	return parsePacket(frame, start, end, frame[start]>>4)
}

func parsePacket(frame []byte, start, end int, version uint8) (wire.Packet, bool) {
	if version != 4 && version != 6 {
		return wire.Packet{}, false
	}
	p, err := wire.ParseIP(frame, start, end, version)
	return p, err == nil
}
