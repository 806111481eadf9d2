// Package forge makes the packets that judge and measure: plain UDP and ICMP,
// options and extension headers, Ethernet frames (build.go), and sealed packets
// that are wrong under a good ICV (mangle.go). A wrong ICV is a byte flipped
// afterwards.
//
// A wrong request panics: what a network or a person sent never gets here.
package forge

import (
	"encoding/binary"
	"net/netip"

	"tapsec/wire"
)

const (
	ipv6Len = 40
	ttl     = 64
)

// appendIP appends an IPv4 or IPv6 header without length and checksum, which
// mend fills in.
func appendIP(dst []byte, from, to netip.Addr, proto uint8) []byte {
	if from.Is4() != to.Is4() {
		panic("forge: a packet between two IP versions")
	}
	if from.Is4() {
		dst = append(dst, 0x45, 0, 0, 0, 0, 0, 0, 0, ttl, proto, 0, 0)
	} else {
		dst = append(dst, 0x60, 0, 0, 0, 0, 0, proto, ttl)
	}
	return append(append(dst, from.AsSlice()...), to.AsSlice()...)
}

// mend gives the IP header its length and, in IPv4, its checksum.
func mend(packet []byte) {
	be, length := binary.BigEndian, len(packet)
	if packet[0]>>4 == 6 {
		length -= ipv6Len
	}
	if length > 0xffff {
		panic("forge: a packet over 65535 bytes")
	}
	if packet[0]>>4 == 6 {
		be.PutUint16(packet[4:], uint16(length))
		return
	}
	be.PutUint16(packet[2:], uint16(length))
	be.PutUint16(packet[10:], 0)
	be.PutUint16(packet[10:], wire.Checksum(0, packet[:int(packet[0]&15)*4]))
}

// parse finds the headers of a packet, which must be complete.
func parse(packet []byte) *wire.Packet {
	p, err := wire.ParseIP(packet, 0, len(packet), packet[0]>>4)
	if err != nil || p.Short {
		panic("forge: not one whole IP packet")
	}
	return &p
}

// UDP appends a complete IP packet of either version that carries payload in
// UDP, with right checksums. Addresses of two versions panic, and so does a
// packet over 65535 bytes.
func UDP(dst []byte, from, to netip.AddrPort, payload []byte) []byte {
	start, be := len(dst), binary.BigEndian
	dst = appendIP(dst, from.Addr(), to.Addr(), wire.ProtoUDP)
	dst = be.AppendUint16(be.AppendUint16(dst, from.Port()), to.Port())
	dst = be.AppendUint16(dst, uint16(wire.UDPLen+len(payload)))
	dst = append(be.AppendUint16(dst, 0xffff), payload...) // 0 would say that there is no checksum
	mend(dst[start:])
	wire.UpperSum(dst[start:], parse(dst[start:]))
	return dst
}

// Echo appends a complete IP packet with an ICMP or ICMPv6 echo request. It
// panics as UDP does.
func Echo(dst []byte, from, to netip.Addr, id, seq uint16, payload []byte) []byte {
	start, be := len(dst), binary.BigEndian
	proto, request := uint8(wire.ProtoICMP), uint8(8)
	if from.Is6() {
		proto, request = wire.ProtoICMPv6, 128
	}
	dst = appendIP(dst, from, to, proto)
	at := len(dst)
	dst = append(dst, request, 0, 0, 0)
	dst = append(be.AppendUint16(be.AppendUint16(dst, id), seq), payload...)
	pseudo := uint32(0)
	if from.Is6() { // the pseudo-header of RFC 8200 section 8.1
		pseudo = uint32(^wire.Checksum(uint32(proto)+uint32(len(dst)-at), dst[start+8:at]))
	}
	be.PutUint16(dst[at+2:], wire.Checksum(pseudo, dst[at:]))
	mend(dst[start:])
	return dst
}

// Options appends an IPv4 packet with more options at the end of its header:
// options as they are, with zeros (end of options) up to a multiple of 4. It
// panics if packet is no IPv4 packet or the options exceed 40 bytes.
func Options(dst, packet, options []byte) []byte {
	p := mustParse(packet, 4)
	start := len(dst)
	dst = append(dst, packet[:p.Header]...)
	dst = append(dst, options...)
	for (len(dst)-start)%4 != 0 {
		dst = append(dst, 0)
	}
	words := (len(dst) - start) / 4
	if words > 15 {
		panic("forge: more than 40 bytes of IPv4 options")
	}
	dst[start] = 0x40 | byte(words)
	dst = append(dst, packet[p.Header:p.End]...)
	mend(dst[start:])
	return dst
}

// Extension appends an IPv6 packet with one more extension header, number
// proto, after those that it has. Of header, whole as on the wire, only the
// first byte is changed: it names what follows. It panics if packet is no IPv6
// packet.
func Extension(dst, packet []byte, proto uint8, header []byte) []byte {
	p := mustParse(packet, 6)
	start := len(dst)
	dst = append(dst, packet[:p.Header]...)
	dst[start+p.ProtoAt] = proto
	dst = append(dst, header...)
	dst[start+p.Header] = p.Proto
	dst = append(dst, packet[p.Header:p.End]...)
	mend(dst[start:])
	return dst
}

func mustParse(packet []byte, version uint8) wire.Packet {
	p := *parse(packet)
	if p.Version != version {
		panic("forge: not a packet of the IP version that this header belongs to")
	}
	return p
}

// AppendFrame appends an Ethernet frame that carries an IP packet of either
// version after any number of VLAN tags, outermost first, each as on the wire:
// 0x8100_0064 is VLAN 100. The MAC addresses are locally administered. The
// frame is not padded to 60 bytes.
func AppendFrame(dst, packet []byte, tags ...uint32) []byte {
	dst = append(dst, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1)
	for _, tag := range tags {
		dst = binary.BigEndian.AppendUint32(dst, tag)
	}
	return append(binary.BigEndian.AppendUint16(dst, wire.EtherTypeOf(packet[0]>>4)), packet...)
}
