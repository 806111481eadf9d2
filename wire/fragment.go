package wire

import "encoding/binary"

// Fragment says what a fragment carries and where that belongs. Offsets into the frame
// count from its first byte.
type Fragment struct {
	ID     uint32 // of the datagram: 16 bits in IPv4, 32 in IPv6
	Offset int    // of the data in the datagram, in bytes, a multiple of 8
	More   bool   // others follow this one
	Head   int    // frame[:Head] comes before the whole datagram, too
	Data   int    // frame[Data:p.End] is the data
	NextAt int    // the byte before Head that names what the data is
	Next   uint8  // that name
}

// ParseFragment looks at packet p, which ParseIP found to be a fragment (RFC 791
// section 3.1, RFC 8200 section 4.5). Of several IPv6 fragment headers the first
// one counts.
func ParseFragment(frame []byte, p *Packet) Fragment {
	if !p.Fragment {
		panic("wire: ParseFragment of a packet that is none")
	}
	be := binary.BigEndian
	if p.Version == 4 {
		ip := frame[p.Start:]
		bits := be.Uint16(ip[6:])
		return Fragment{
			ID: uint32(be.Uint16(ip[4:])), Offset: int(bits&0x1fff) * 8, More: bits&0x2000 != 0,
			Head: p.Header, Data: p.Header, NextAt: p.ProtoAt, Next: p.Proto,
		}
	}
	nextAt, at := p.Start+6, p.Start+IPv6Len
	for frame[nextAt] != ProtoFragment {
		nextAt, at = at, at+8+int(frame[at+1])*8
	}
	h := frame[at:]
	bits := be.Uint16(h[2:])
	return Fragment{
		ID: be.Uint32(h[4:]), Offset: int(bits &^ 7), More: bits&1 != 0,
		Head: at, Data: at + 8, NextAt: nextAt, Next: h[0],
	}
}

// Unfragment turns the packet at frame[start], the head of its first fragment f followed
// by all data of the datagram, into a whole one: next header, length, no fragmentation,
// IPv4 checksum. DF stays. With congested the ECN field becomes CE. The packet must be no
// longer than its length field can say.
func Unfragment(frame []byte, start int, f Fragment, congested bool) {
	frame[f.NextAt] = f.Next
	ip, be := frame[start:], binary.BigEndian
	if ip[0]>>4 == 6 {
		be.PutUint16(ip[4:], uint16(len(ip)-IPv6Len))
		if congested {
			ip[1] |= ce << 4
		}
		return
	}
	if congested {
		ip[1] |= ce
	}
	be.PutUint16(ip[2:], uint16(len(ip)))
	ip[6], ip[7] = ip[6]&0xc0, 0
	ip[10], ip[11] = 0, 0
	be.PutUint16(ip[10:], Checksum(0, ip[:f.Head-start]))
}
