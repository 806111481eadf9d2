package segment

import (
	"encoding/binary"

	"tapsec/wire"
)

// header is an IP header that lies in the frame.
type header struct {
	at int
	v4 bool
	id uint16 // of the first piece
}

// write gives the header of a piece the length of its packet and, in IPv4, identification and checksum.
func (h header) write(piece []byte, length, number int) {
	b := piece[h.at:]
	if !h.v4 {
		binary.BigEndian.PutUint16(b[4:], uint16(length-wire.IPv6Len))
		return
	}
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	binary.BigEndian.PutUint16(b[4:], h.id+uint16(number))
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], wire.Checksum(0, b[:int(b[0]&15)*4]))
}

// pseudo is the sum over the pseudo-header without the length (RFC 9293 section 3.1, RFC 8200 section 8.1).
func (h header) pseudo(frame []byte, proto uint8) uint32 {
	addresses := frame[h.at+12 : h.at+wire.IPv4Len]
	if !h.v4 {
		addresses = frame[h.at+8 : h.at+wire.IPv6Len]
	}
	return uint32(^wire.Checksum(uint32(proto), addresses))
}

// locate finds the upper header, whose payload was merged, and the IP headers before it:
//
//  1. After Ethernet header and tags comes an IP packet, complete. Bytes after it belong to no piece.
//  2. It carries the upper header, if the missing checksum starts there or none is missing,
//  3. or another IP packet; then again from 1,
//  4. or one in UDP or GRE, with headers that are the same in every piece.
func (c *Cutter) locate(h Header, frame []byte) bool {
	c.frame = frame
	at := network(frame)
	for c.nested < maxNested {
		p, ok := c.enter(at)
		switch {
		case !ok:
			return false
		case p.Header == h.start || h.flags&needsSum == 0:
			return c.found(h, &p)
		case p.Proto == wire.ProtoIPv4 || p.Proto == wire.ProtoIPv6:
			at = p.Header
		default:
			if at, ok = c.tunnelled(h, &p); !ok {
				return false
			}
		}
	}
	return false
}

// enter notes the IP header at an offset. A packet too long for its length field has zero there, and
// reaches to the end of the frame.
func (c *Cutter) enter(at int) (p wire.Packet, ok bool) {
	b := c.frame[min(at, len(c.frame)):]
	if len(b) < wire.IPv4Len {
		return p, false
	}
	v4, long := b[0]>>4 == 4, false
	if v4 && b[2]|b[3] == 0 {
		long, b[2], b[3] = true, 0xff, 0xff
	}
	if p.ParseIP(c.frame, at, len(c.frame), b[0]>>4) != nil || p.Fragment || p.Short && !long {
		return p, false
	}
	if !long {
		c.frame = c.frame[:p.End]
	}
	c.ips[c.nested] = header{at: at, v4: v4, id: binary.BigEndian.Uint16(b[4:])}
	c.nested++
	return p, true
}

// found takes p's upper header. If a routing header names another final destination (RFC 8200 section
// 8.1), the sum over the pseudo-header without the length is what the sender left in the checksum's
// place.
func (c *Cutter) found(h Header, p *wire.Packet) bool {
	const tcpSum, udpSum = 16, 6
	proto, place := uint8(wire.ProtoUDP), udpSum
	if c.tcp {
		proto, place = wire.ProtoTCP, tcpSum
	}
	b := c.frame[min(p.Header, len(c.frame)):]
	if p.Proto != proto || len(b) < place+2 {
		return false
	}
	left := h.flags&needsSum != 0
	c.upper = p.Header
	c.summed = left || p.Version == 6 || b[place]|b[place+1] != 0
	c.pseudo = c.ips[c.nested-1].pseudo(c.frame, proto)
	c.bare = c.Sealed && c.nested == 1 && p.Version == 4
	if p.Routed {
		c.pseudo = uint32(binary.BigEndian.Uint16(b[place:])) + uint32(^uint16(len(b)))
	}
	return left || !p.Routed
}

// tunnelled finds the IP packet after a tunnel's headers in p: the one whose header ends where the
// checksum starts. It finds none after GRE with a checksum or sequence numbers (RFC 2890).
func (c *Cutter) tunnelled(h Header, p *wire.Packet) (at int, ok bool) {
	const gre, sumOrNumbers = 47, 0x90
	switch from := c.frame[p.Header:]; {
	case p.Proto == wire.ProtoUDP && c.tunnel == 0 && len(from) >= wire.UDPLen:
		if p.Routed && from[6]|from[7] != 0 {
			return 0, false
		}
		c.tunnel, c.within = p.Header, c.nested-1
	case p.Proto == gre && len(from) >= 4 && from[0]&sumOrNumbers == 0:
	default:
		return 0, false
	}
	for at := h.start - wire.IPv4Len; at > p.Header; at-- {
		inner, ok := wire.Addresses(c.frame, at)
		if ok && inner.Header == h.start && inner.End == len(c.frame) {
			return at, true
		}
	}
	return 0, false
}

// network returns the offset after the Ethernet header and all its VLAN tags.
func network(frame []byte) int {
	const ether8021Q, ether8021AD, tagLen = 0x8100, 0x88a8, 4
	at := 12
	for at+2 <= len(frame) {
		if t := binary.BigEndian.Uint16(frame[at:]); t != ether8021Q && t != ether8021AD {
			break
		}
		at += tagLen
	}
	return at + 2
}

// withoutJumbo takes the jumbo payload option (RFC 2675) out of a frame that was never on a wire: the
// stack puts it, in a header of its own, into one of more than 65535 bytes that is still to be cut.
func withoutJumbo(h Header, frame []byte) (Header, []byte) {
	const length = 8
	at := network(frame)
	end := at + wire.IPv6Len
	if len(frame) < end+length || frame[at]>>4 != 6 || frame[at+4]|frame[at+5]|frame[at+6] != 0 {
		return h, frame
	}
	if option := frame[end : end+4]; option[1] != 0 || option[2] != 0xc2 || option[3] != 4 {
		return h, frame
	}
	frame[at+6] = frame[end]
	copy(frame[length:], frame[:end])
	return h.Shift(-length), frame[length:]
}
