package wire

import "encoding/binary"

// StripTunnel leaves of a frame its Ethernet header with tags and the packet inside the
// tunnel, cut to its own length. The EtherType becomes the inner version's; the inner
// header does not change. l3 is the offset after the EtherType. The Ethernet header moves,
// not the packet, so the frame returned begins later in the same memory.
func StripTunnel(frame []byte, l3 int, inner *Packet) []byte {
	binary.BigEndian.PutUint16(frame[l3-2:], EtherTypeOf(inner.Version))
	gap := inner.Start - l3
	copy(frame[gap:], frame[:l3])
	return frame[gap:inner.End]
}

// StripTransport removes the bytes of packet p from p.Header to payload (UDP
// encapsulation, AH, ESP header and IV), and everything after payload+n (pad, ICV,
// whatever follows the packet). The IP header then announces next: protocol, length, and
// the IPv4 checksum by incremental update, so that a wrong one stays wrong (RFC 1624). It
// returns the shorter frame, which begins later in the same memory, and leaves in p where the
// packet lies in it.
func StripTransport(frame []byte, p *Packet, payload, n int, next uint8) []byte {
	gap := payload - p.Header
	copy(frame[gap:], frame[:p.Header])
	frame = frame[gap : payload+n]
	p.End = p.Header + n
	p.Reach = p.End
	p.Proto = next
	ip := frame[p.Start:]
	be := binary.BigEndian
	if p.Version == 6 {
		be.PutUint16(ip[4:], uint16(p.End-p.Start-IPv6Len))
		frame[p.ProtoAt] = next
		return frame
	}
	lengthWas, protoWas := be.Uint16(ip[2:]), be.Uint16(ip[8:])
	be.PutUint16(ip[2:], uint16(p.End-p.Start))
	ip[9] = next
	sum := be.Uint16(ip[10:])
	sum = updateChecksum(sum, lengthWas, be.Uint16(ip[2:]))
	sum = updateChecksum(sum, protoWas, be.Uint16(ip[8:]))
	be.PutUint16(ip[10:], sum)
	return frame
}
