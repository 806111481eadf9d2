package segment

import (
	"encoding/binary"

	"tapsec/wire"
)

// Cutter cuts a merged frame into the frames it stands for. It may be reused; the zero value has nothing
// to cut. Every piece has all headers of the merged frame, then its share of the payload. As when the
// stack itself cuts, the pieces differ in:
//
//   - the lengths in all IP headers; an IPv4 header's identification, one higher each time, and its
//     checksum
//   - TCP: the sequence number; FIN and PSH, which only the last piece has; CWR (see kindECN)
//   - UDP: the length, of a tunnel's UDP header as well
//   - the checksum of either, if there is one (see Sealed)
type Cutter struct {
	// Sealed leaves ESP in UDP over IPv4 without the UDP checksum, as its sender is to (RFC 3948 section 2.1).
	Sealed bool

	frame  []byte // merged, without bytes after its packet
	head   int    // length of all headers
	size   int    // bytes of payload in each piece but the last
	at     int    // where the next piece's payload begins; 0 if there is nothing to cut
	number int    // of the next piece, from 0

	ips    [maxNested]header // outermost first
	nested int               // how many of them there are
	upper  int               // the TCP or UDP header whose payload was merged
	pseudo uint32            // sum over its pseudo-header without the length
	summed bool              // it has a checksum
	bare   bool              // but not if it is ESP
	tcp    bool
	once   uint8  // TCP flags that only the first piece has
	seq    uint32 // of the first piece
	tunnel int    // a UDP header around an inner packet; 0 where there is none
	within int    // the IP header that the tunnel's UDP header follows
}

// maxNested is the largest number of nested IP headers. The kernel merges nothing inside more than one
// tunnel.
const maxNested = 3

const (
	maxPacket = 65535 // bytes of IP that have a length
	tcpLen    = 20    // without options

	flagFIN = 0x01
	flagPSH = 0x08
	flagCWR = 0x80
)

// Begin takes a merged frame to cut. Begin may change its headers; after that the frame must stay as it
// is until the last piece is made. It reports false if it cannot cut the frame; then there are no
// pieces.
func (c *Cutter) Begin(h Header, frame []byte) bool {
	*c = Cutter{Sealed: c.Sealed, size: h.size, tcp: h.kind&^kindECN != kindUDP}
	if h.kind&kindECN != 0 {
		c.once = flagCWR
	}
	switch h.kind &^ kindECN {
	case kindTCPv4, kindTCPv6, kindUDP:
	default:
		return false
	}
	if h.size == 0 || !c.locate(withoutJumbo(h, frame)) || !c.measure() {
		c.at = 0
		return false
	}
	return true
}

// measure finds where the payload begins, by the upper header's own length.
func (c *Cutter) measure() bool {
	b, length, least := c.frame[c.upper:], wire.UDPLen, wire.UDPLen
	if c.tcp {
		if least = tcpLen; len(b) < least {
			return false
		}
		length, c.seq = int(b[12]>>4)*4, binary.BigEndian.Uint32(b[4:])
	}
	c.head = c.upper + length
	c.at = c.head
	return length >= least && length < len(b) && c.Len()-c.ips[0].at <= maxPacket
}

// Len is the length in bytes of the next piece, 0 if there is none.
func (c *Cutter) Len() int {
	if c.at == 0 {
		return 0
	}
	return c.head + min(c.size, len(c.frame)-c.at)
}

// Skip leaves the next piece out.
func (c *Cutter) Skip() {
	c.at += min(c.size, len(c.frame)-c.at)
	c.number++
	if c.at == len(c.frame) {
		c.at = 0
	}
}

// Append appends the next piece to dst. There must be one.
func (c *Cutter) Append(dst []byte) []byte {
	from, end := len(dst), c.at+c.Len()-c.head
	dst = append(dst, c.frame[:c.head]...)
	dst = append(dst, c.frame[c.at:end]...)
	c.write(dst[from:], end == len(c.frame))
	c.Skip()
	return dst
}

// write gives a piece its own headers, the outer ones last, since their checksums may cover the inner
// ones.
func (c *Cutter) write(piece []byte, last bool) {
	for i := range c.nested {
		c.ips[i].write(piece, len(piece)-c.ips[i].at, c.number)
	}
	b := piece[c.upper:]
	if c.tcp {
		binary.BigEndian.PutUint32(b[4:], c.seq+uint32(c.number*c.size))
		if !last {
			b[13] &^= flagFIN | flagPSH
		}
		if c.number > 0 {
			b[13] &^= c.once
		}
		seal(b, 16, c.pseudo)
	} else {
		writeUDP(b, c.pseudo, c.summed && !(c.bare && isSealed(b)))
	}
	if c.tunnel > 0 {
		b, outer := piece[c.tunnel:], c.ips[c.within]
		writeUDP(b, outer.pseudo(piece, wire.ProtoUDP), b[6]|b[7] != 0)
	}
}

func writeUDP(b []byte, pseudo uint32, summed bool) {
	const place = 6
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	b[place], b[place+1] = 0, 0
	if summed {
		if seal(b, place, pseudo); b[place]|b[place+1] == 0 {
			b[place], b[place+1] = 0xff, 0xff
		}
	}
}

// seal writes the checksum of a TCP segment or UDP datagram b to its place.
func seal(b []byte, place int, pseudo uint32) {
	b[place], b[place+1] = 0, 0
	binary.BigEndian.PutUint16(b[place:], wire.Checksum(pseudo+uint32(len(b)), b))
}
