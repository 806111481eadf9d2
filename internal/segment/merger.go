package segment

import (
	"bytes"
	"encoding/binary"

	"tapsec/wire"
)

// Merger is the reverse of a Cutter: it puts neighbours of one TCP or UDP flow into a merged frame,
// from which a Cutter makes the very same frames again. The zero value has merged none. It merges what
// the kernel's own GRO would (net/ipv4/tcp_offload.c, udp_offload.c, af_inet.c in Linux), and is
// stricter where cutting would lose something:
//
//   - Ethernet header with tags and IP header are the same, except for lengths, checksum and, in IPv4,
//     an identification that is one higher each time. So ECN, DF, TTL and flow label are kept.
//   - There are no IPv4 options, IPv6 extension headers or fragments, and no bytes after the packet;
//     all checksums are present and right.
//   - All have the same length, except the last, which may be shorter.
//   - TCP: each continues where the one before ended; acknowledgment, window, options (timestamps among
//     them) and flags are the same. Only the last has PSH or FIN; segments with SYN, RST, URG or CWR,
//     or without payload, stay alone.
//   - UDP: the ports are the same.
//
// Only neighbours are merged, so that no frame overtakes another, of its own flow or any other.
type Merger struct {
	NoUDP bool // leave UDP alone

	// Sealed merges nothing but ESP in UDP of one SPI on port 4500. It may be without a checksum, which
	// a sender is to leave out and no receiver to rely on (RFC 3948 section 2.1): what is cut has one,
	// unless the Cutter is for such frames, too.
	Sealed bool

	first, last segment
	frame       []byte // the first
	pieces      int
}

// MaxHeaders is the most that AppendHeaders adds, in bytes: the virtio header, and those of Ethernet
// with as many tags as possible, IPv6 and TCP.
const MaxHeaders = HeaderLen + maxLink + wire.IPv6Len + 60

const maxLink = 14 + 4*4

// segment is what a Merger looks at in a frame.
type segment struct {
	l3, upper, payload int // where IP header, TCP or UDP header, and payload begin
	size               int // of the payload, in bytes
	v4, tcp            bool
	id                 uint16 // of IPv4
	seq                uint32 // of TCP
	final              uint8  // TCP's PSH and FIN
}

// Merge returns how many frames, from the first on, are to go as one, at least 1. There must be one.
// They stay as they are; until the next call AppendHeaders and Payload give the parts of the merged
// frame.
func (m *Merger) Merge(frames [][]byte) int {
	m.pieces, m.frame = 1, frames[0]
	if !m.first.read(frames[0]) || m.NoUDP && !m.first.tcp || m.Sealed && (m.first.tcp || !isSealed(m.frame[m.first.upper:])) {
		return 1
	}
	m.last = m.first
	for _, frame := range frames[1:] {
		var next segment
		if !m.open() || !next.read(frame) || !m.continues(&next, frame) || m.Sealed && !m.first.sameSPI(m.frame, frame) {
			break
		}
		if m.pieces == 1 && !m.summed(&m.first, m.frame) || !m.summed(&next, frame) {
			break
		}
		m.last = next
		m.pieces++
	}
	return m.pieces
}

// open reports whether a frame may follow the last one.
func (m *Merger) open() bool { return m.last.size == m.first.size && m.last.final == 0 }

// continues reports whether a frame follows the last one.
func (m *Merger) continues(next *segment, frame []byte) bool {
	a, b := &m.first, next
	if a.l3 != b.l3 || a.payload != b.payload || a.v4 != b.v4 || a.tcp != b.tcp || b.size > a.size ||
		m.length()+b.size-a.l3 > maxPacket || !bytes.Equal(m.frame[:a.l3], frame[:a.l3]) {
		return false
	}
	return a.sameIP(m.frame, frame) && (!a.v4 || b.id == a.id+uint16(m.pieces)) && a.sameUpper(m.frame, frame) &&
		(!a.tcp || b.seq == m.last.seq+uint32(m.last.size))
}

// length is what the merged frame has so far, in bytes.
func (m *Merger) length() int { return m.first.payload + (m.pieces-1)*m.first.size + m.last.size }

func (s *segment) sameIP(a, b []byte) bool {
	a, b = a[s.l3:s.upper], b[s.l3:s.upper]
	if s.v4 {
		return a[1] == b[1] && bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:], b[12:])
	}
	return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:], b[6:])
}

func (s *segment) sameUpper(a, b []byte) bool {
	a, b = a[s.upper:s.payload], b[s.upper:s.payload]
	if !s.tcp {
		return bytes.Equal(a[:4], b[:4])
	}
	return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[8:13], b[8:13]) && (a[13]^b[13])&^(flagFIN|flagPSH) == 0 &&
		bytes.Equal(a[14:16], b[14:16]) && bytes.Equal(a[18:], b[18:])
}

// read finds the headers of a frame that may be merged with others; false if it can be merged with
// none.
func (s *segment) read(frame []byte) bool {
	*s = segment{l3: network(frame)}
	if s.l3 > maxLink || s.l3+wire.IPv4Len > len(frame) {
		return false
	}
	proto, ok := s.readIP(frame)
	if !ok || s.upper >= len(frame) {
		return false
	}
	switch b := frame[s.upper:]; proto {
	case wire.ProtoTCP:
		s.tcp, ok = true, s.readTCP(b)
	case wire.ProtoUDP:
		s.payload = s.upper + wire.UDPLen
		ok = len(b) > wire.UDPLen && int(binary.BigEndian.Uint16(b[4:])) == len(b)
	default:
		return false
	}
	s.size = len(frame) - s.payload
	return ok && s.size > 0
}

// readIP reads an IP header of minimal length, of a packet that is no fragment and ends where the frame
// does.
func (s *segment) readIP(frame []byte) (proto uint8, ok bool) {
	const fragment = 0x3fff // more fragments, and the offset
	be, b := binary.BigEndian, frame[s.l3:]
	switch be.Uint16(frame[s.l3-2:]) {
	case wire.EtherIPv4:
		s.v4, s.upper, s.id = true, s.l3+wire.IPv4Len, be.Uint16(b[4:])
		return b[9], b[0] == 0x45 && int(be.Uint16(b[2:])) == len(b) && be.Uint16(b[6:])&fragment == 0 &&
			be.Uint16(b[10:]) != 0xffff && wire.Checksum(0, b[:wire.IPv4Len]) == 0
	case wire.EtherIPv6:
		s.upper = s.l3 + wire.IPv6Len
		return b[6], b[0]>>4 == 6 && wire.IPv6Len+int(be.Uint16(b[4:])) == len(b)
	}
	return 0, false
}

func (s *segment) readTCP(b []byte) bool {
	const syn, rst, ack, urg = 0x02, 0x04, 0x10, 0x20
	if len(b) < tcpLen {
		return false
	}
	length, flags := int(b[12]>>4)*4, b[13]
	s.payload, s.seq, s.final = s.upper+length, binary.BigEndian.Uint32(b[4:]), flags&(flagFIN|flagPSH)
	return length >= tcpLen && flags&(syn|rst|ack|urg|flagCWR) == ack
}

const spiLen = 4

// isSealed reports whether UDP carries ESP. Instead of an SPI, IKE has zero there (RFC 3948 section 2.2).
func isSealed(udp []byte) bool {
	be := binary.BigEndian
	return len(udp) > wire.UDPLen+spiLen && be.Uint32(udp[wire.UDPLen:]) != 0 && wire.Encapsulated(be.Uint16(udp), be.Uint16(udp[2:]))
}

// sameSPI compares a frame with the first, which is ESP in UDP.
func (s *segment) sameSPI(a, b []byte) bool {
	return len(b) > s.payload+spiLen && bytes.Equal(a[s.payload:s.payload+spiLen], b[s.payload:s.payload+spiLen])
}

// summed reports whether a frame's checksum is what a Cutter would write, or need not be.
func (m *Merger) summed(s *segment, frame []byte) bool {
	const none, tcpSum, udpSum = 0, 16, 6
	b := frame[s.upper:]
	switch {
	case s.tcp:
		return binary.BigEndian.Uint16(b[tcpSum:]) != 0xffff && s.sum(frame, len(b), b) == 0
	case binary.BigEndian.Uint16(b[udpSum:]) == none:
		return m.Sealed && s.v4
	}
	return s.sum(frame, len(b), b) == 0
}

// sum is the checksum over a pseudo-header and bytes.
func (s *segment) sum(frame []byte, length int, b []byte) uint16 {
	proto := uint8(wire.ProtoUDP)
	if s.tcp {
		proto = wire.ProtoTCP
	}
	return wire.Checksum(header{at: s.l3, v4: s.v4}.pseudo(frame, proto)+uint32(length), b)
}

// Payload is a frame's part in the merged one, which follows that of the frame before.
func (m *Merger) Payload(frame []byte) []byte { return frame[m.first.payload:] }

// AppendHeaders appends the merged frame up to the first Payload: its virtio header, and all headers of
// the frame. The checksum is left to the receiver, with the sum over the pseudo-header in its place.
func (m *Merger) AppendHeaders(dst []byte) []byte {
	const tcpSum, udpSum = 16, 6
	s, from := &m.first, len(dst)+HeaderLen
	kind, place := uint8(kindUDP), udpSum
	if s.tcp {
		kind, place = kindTCPv4, tcpSum
		if !s.v4 {
			kind = kindTCPv6
		}
	}
	order := binary.NativeEndian
	dst = append(dst, needsSum, kind)
	for _, field := range []int{s.payload, s.size, s.upper, place} {
		dst = order.AppendUint16(dst, uint16(field))
	}
	dst = append(dst, m.frame[:s.payload]...)
	frame, length := dst[from:], m.length()
	upper := frame[s.upper:]
	header{at: s.l3, v4: s.v4, id: s.id}.write(frame, length-s.l3, 0)
	if s.tcp {
		upper[13] |= m.last.final
	} else {
		binary.BigEndian.PutUint16(upper[4:], uint16(length-s.upper))
	}
	binary.BigEndian.PutUint16(upper[place:], ^s.sum(frame, length-s.upper, nil))
	return dst
}
