package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// IP protocol and next-header numbers.
const (
	ProtoHopByHop = 0
	ProtoIPv4     = 4
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoNoNext   = 59
	ProtoDestOpts = 60
	ProtoAggFrag  = 144 // what IP-TFS carries (RFC 9347 section 6.1)
)

// Numbers of upper protocols.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoICMPv6 = 58

	protoDCCP    = 33
	protoSCTP    = 132
	protoUDPLite = 136
)

// Lengths of IP headers in bytes.
const (
	IPv4Len = 20 // without options
	IPv6Len = 40
)

// Packet says where things lie in one IP packet of a frame. Offsets count from
// the first byte of the frame.
type Packet struct {
	Version uint8
	Proto   uint8 // what lies at Header: upper protocol, AH or ESP
	Start   int   // the IP header
	ProtoAt int   // the byte that names Proto
	Header  int   // after options and extension headers
	End     int   // the packet's end by its own length field
	Reach   int   // the end of the bytes that are there: End, or less where Short
	Src     netip.Addr
	Dst     netip.Addr

	Short    bool // the length field reaches beyond the bytes there are
	Fragment bool // a fragment, or an atomic one (RFC 6946)
	Later    bool // a fragment that is not the first: Header holds no header
	Options  bool // IPv4 options
	Extended bool // IPv6 extension headers before Header
	Routed   bool // a routing header with segments left
	OddRoute bool // a routing header of another type than 0
	Jumbo    bool // IPv6 payload length 0; End is then the end of the bytes
}

// Move makes p describe the same packet where it lies by bytes further on.
func (p *Packet) Move(by int) {
	p.Start, p.ProtoAt, p.Header, p.End, p.Reach = p.Start+by, p.ProtoAt+by, p.Header+by, p.End+by, p.Reach+by
}

// Errors of ParseIP.
var (
	ErrVersion = errors.New("wire: no IP packet of the version announced")
	ErrHeader  = errors.New("wire: the IP header or its chain of extension headers does not fit")
)

// ParseIP parses the IP packet of the announced version (4 or 6) that starts at
// frame[start] and may reach to frame[limit]. The IPv4 checksum is not looked
// at. The packet is as far as the parser came where the error is ErrHeader.
func ParseIP(frame []byte, start, limit int, version uint8) (p Packet, err error) {
	err = p.ParseIP(frame, start, limit, version)
	return p, err
}

// ParseIP is the function of that name, without a copy of the result, which would take as
// long as parsing.
func (p *Packet) ParseIP(frame []byte, start, limit int, version uint8) error {
	*p = Packet{}
	b := frame[start:limit]
	switch {
	case len(b) == 0 || b[0]>>4 != version:
	case version == 4:
		return p.parseIPv4(b, start)
	case version == 6:
		return p.parseIPv6(b, start)
	}
	return ErrVersion
}

// parseIPv4 follows RFC 791 section 3.1.
func (p *Packet) parseIPv4(b []byte, start int) error {
	if len(b) < IPv4Len {
		return ErrHeader
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < IPv4Len || total < header || header > len(b) {
		return ErrHeader
	}
	const more, offset = 0x2000, 0x1fff
	frag := binary.BigEndian.Uint16(b[6:])
	p.Version, p.Proto = 4, b[9]
	p.Start, p.ProtoAt, p.Header, p.End = start, start+9, start+header, start+total
	p.Reach = start + min(total, len(b))
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p.Short = total > len(b)
	p.Fragment, p.Later = frag&(more|offset) != 0, frag&offset != 0
	p.Options = header > IPv4Len
	return nil
}

// parseIPv6 follows RFC 8200 sections 3 and 4.
func (p *Packet) parseIPv6(b []byte, start int) error {
	if len(b) < IPv6Len {
		return ErrHeader
	}
	length := IPv6Len + int(binary.BigEndian.Uint16(b[4:]))
	p.Version, p.Proto = 6, b[6]
	p.Start, p.ProtoAt, p.Header, p.End = start, start+6, start+IPv6Len, start+length
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	p.Short, p.Jumbo = length > len(b), length == IPv6Len
	if p.Jumbo {
		p.End = start + len(b)
	}
	p.Reach = min(p.End, start+len(b))
	return p.walk(b[:p.Reach-start])
}

// walk steps over the extension headers before IPsec or the upper layer. Hop-by-hop
// options may only follow the IPv6 header directly; the others come in any order. b is
// the packet.
func (p *Packet) walk(b []byte) error {
	for at := IPv6Len; ; at = p.Header - p.Start {
		switch p.Proto {
		case ProtoHopByHop:
			if at != IPv6Len {
				return ErrHeader
			}
		case ProtoRouting, ProtoDestOpts, ProtoFragment:
		default:
			return nil
		}
		if at+8 > len(b) {
			return ErrHeader
		}
		length := 8 + int(b[at+1])*8
		switch p.Proto {
		case ProtoRouting:
			p.Routed = p.Routed || b[at+3] != 0
			p.OddRoute = p.OddRoute || b[at+2] != 0
		case ProtoFragment:
			length = 8
			p.Fragment = true
			p.Later = binary.BigEndian.Uint16(b[at+2:])&0xfff8 != 0
		}
		if at+length > len(b) {
			return ErrHeader
		}
		p.Extended = true
		p.Proto, p.ProtoAt, p.Header = b[at], p.Start+at, p.Start+at+length
		if p.Later {
			return nil
		}
	}
}

// Addresses parses the IP packet at frame[at], of either version. ok is false if its
// headers are not all there.
func Addresses(frame []byte, at int) (p Packet, ok bool) { return Within(frame, at, len(frame)) }

// Within is Addresses for a packet that may reach to frame[end].
func Within(frame []byte, at, end int) (p Packet, ok bool) {
	if at < 0 || at >= end || end > len(frame) {
		return p, false
	}
	err := p.ParseIP(frame, at, end, frame[at]>>4)
	return p, err == nil
}

// UDPLen is the length of a UDP header in bytes (RFC 768).
const UDPLen = 8

// EncapPort is the UDP port of encapsulated ESP (RFC 3948 section 2.1). A NAT changes a
// client's, so a server's packets go from it to any port.
const EncapPort = 4500

// Encapsulated reports whether UDP between these ports may carry ESP.
func Encapsulated(src, dst uint16) bool { return src == EncapPort || dst == EncapPort }

// UDP reads ports and length of the UDP header at b[0]. ok is false if the header is cut
// off.
func UDP(b []byte) (src, dst uint16, length int, ok bool) {
	if len(b) < UDPLen {
		return 0, 0, 0, false
	}
	be := binary.BigEndian
	return be.Uint16(b), be.Uint16(b[2:]), int(be.Uint16(b[4:])), true
}
