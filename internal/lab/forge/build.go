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

// mend gives the IP header its length and, in IPv4, its checksum.
func mend(packet []byte) {
	if !wire.SetLength(packet) {
		panic("forge: a packet over 65535 bytes")
	}
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
	dst = wire.AppendIP(dst, from.Addr(), to.Addr(), wire.ProtoUDP, 0, 0, 0)
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
	dst = wire.AppendIP(dst, from, to, proto, 0, 0, 0)
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
