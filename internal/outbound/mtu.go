package outbound

import (
	"encoding/binary"

	"tapsec/wire"
)

var be = binary.BigEndian

const (
	fragmentLen = 8 // IPv6's extension header

	dontFragment  = 0x4000
	moreFragments = 0x2000
	offsetMask    = 0x1fff

	leastIPv4 = 68   // no link has a smaller MTU (RFC 791)
	leastIPv6 = 1280 // nor in IPv6 (RFC 8200 section 5)
)

// tags is how many bytes a frame's VLAN tags take from the wire's MTU. A packet socket
// exempts one 802.1Q tag, and no other (packet_snd in Linux).
func (s *Sender) tags(frame []byte, p *wire.Packet) int {
	const header, tag, vlan = 14, 4, 0x8100
	n := p.Start - header
	if n == 0 || !s.config.Socket {
		return 0
	}
	if be.Uint16(frame[header-2:]) == vlan {
		n -= tag
	}
	return n
}

// fit is the length of the longest packet with p's headers that passes a wire of this MTU,
// and the paths of its SAs, unfragmented.
func (r *route) fit(p *wire.Packet, mtu int) int {
	switch header := p.Header - p.Start; {
	case header == wire.IPv4Len && mtu == r.mtu:
		return r.fit4
	case header == wire.IPv6Len && p.Version == 6 && mtu == r.mtu:
		return r.fit6
	default:
		return r.sealer.Fit(mtu, header)
	}
}

// tooLong handles a packet that does not pass a wire of this MTU, or its path,
// unfragmented (RFC 4301 section 8.2).
//
//  1. IPv4 says by DF whether it may be fragmented.
//  2. An IPv6 stack fragments by itself once it is told, but not below 1280 bytes
//     (RFC 2473 section 7.1). That does not help in transport mode, which takes no
//     fragments, nor if the stack's fragments are joined again before they are
//     sealed. Then only TCP is told, which makes shorter packets.
//  3. Otherwise what was sealed is fragmented (RFC 4303 section 3.3.4).
func (s *Sender) tooLong(frame []byte, p *wire.Packet, r *route, mtu int) Reason {
	n, least := p.End-p.Start, leastIPv4
	var may bool
	if p.Version == 4 {
		may = be.Uint16(frame[p.Start+6:])&dontFragment == 0
	} else {
		least = leastIPv6
		may = n <= leastIPv6 || (r.endToEnd || s.config.Joined) && p.Proto != wire.ProtoTCP
	}
	if !may {
		s.answer(frame, p, max(least, r.fit(p, mtu)))
		return TooLong
	}
	whole, reason := s.seal(frame, p, r)
	if reason.Dropped() {
		return reason
	}
	mtu = r.sealer.path(mtu)
	if whole[p.Start]>>4 == 6 {
		return s.split6(whole, p.Start, mtu)
	}
	return s.split4(whole, p.Start, mtu)
}

// split4 sends the IPv4 packet at frame[l3:] in fragments (RFC 791 section 3.2).
func (s *Sender) split4(frame []byte, l3, mtu int) Reason {
	header := int(frame[l3]&15) * 4
	payload := frame[l3+header:]
	was := be.Uint16(frame[l3+6:])
	room := (mtu - header) &^ 7
	for at := 0; at < len(payload); at += room {
		n := min(room, len(payload)-at)
		flags := was&offsetMask + uint16(at/8) | was&moreFragments
		if at+n < len(payload) {
			flags |= moreFragments
		}
		piece := s.piece(frame[:l3+header], nil, payload[at:at+n])
		ip := piece[l3:]
		be.PutUint16(ip[2:], uint16(header+n))
		be.PutUint16(ip[6:], flags)
		if at > 0 {
			dropOptions(ip[wire.IPv4Len:header])
		}
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], wire.Checksum(0, ip[:header]))
	}
	return Fragmented
}

// dropOptions overwrites options that only the first fragment carries.
func dropOptions(o []byte) {
	const end, noop, copied = 0, 1, 0x80
	for len(o) > 0 && o[0] != end {
		n := 1
		if o[0] != noop && len(o) > 1 {
			n = min(max(int(o[1]), 1), len(o))
		}
		if o[0]&copied == 0 {
			for i := range o[:n] {
				o[i] = noop
			}
		}
		o = o[n:]
	}
}

// split6 sends the IPv6 packet at frame[l3:] in fragments (RFC 8200 section 4.5).
func (s *Sender) split6(frame []byte, l3, mtu int) Reason {
	ip := frame[l3:]
	header, nextAt := perFragment(ip)
	payload := ip[header:]
	room := (mtu - header - fragmentLen) &^ 7
	if room <= 0 {
		return TooLong
	}
	s.id++
	extension := [fragmentLen]byte{0: ip[nextAt]}
	be.PutUint32(extension[4:], s.id)
	for at := 0; at < len(payload); at += room {
		n := min(room, len(payload)-at)
		offset := uint16(at)
		if at+n < len(payload) {
			offset |= 1
		}
		be.PutUint16(extension[2:], offset)
		piece := s.piece(frame[:l3+header], extension[:], payload[at:at+n])
		piece[l3+nextAt] = wire.ProtoFragment
		be.PutUint16(piece[l3+4:], uint16(len(piece)-l3-wire.IPv6Len))
	}
	return Fragmented
}

// perFragment is the length of the headers that every fragment repeats, which routers on
// the way read: up to a routing header, else hop-by-hop options. nextAt is the byte that
// names what follows them.
func perFragment(ip []byte) (header, nextAt int) {
	header, nextAt = wire.IPv6Len, 6
	next := ip[nextAt]
	for at := wire.IPv6Len; at+8 <= len(ip); {
		n := 8 + int(ip[at+1])*8
		switch next {
		case wire.ProtoHopByHop, wire.ProtoRouting:
			header, nextAt = at+n, at
		case wire.ProtoDestOpts:
		default:
			return header, nextAt
		}
		next, at = ip[at], at+n
	}
	return header, nextAt
}

// piece sends a frame made of three parts, and returns it.
func (s *Sender) piece(headers, extension, payload []byte) []byte {
	start := len(s.buf)
	s.buf = append(append(append(s.buf, headers...), extension...), payload...)
	frame := s.buf[start:len(s.buf):len(s.buf)]
	s.out = append(s.out, frame)
	s.counts[Pieces]++
	return frame
}
