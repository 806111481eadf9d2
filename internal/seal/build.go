package seal

import (
	"encoding/binary"
	"net/netip"

	"tapsec/sa"
	"tapsec/wire"
)

const (
	ipv4Len      = 20
	ipv6Len      = 40
	ttl          = 64
	dontFragment = 0x4000

	protoICMP   = 1
	protoICMPv6 = 58
)

// appendIP appends an IPv4 or IPv6 header without length and checksum, which
// mend puts in. tos is TOS or traffic class; id and flags are IPv4's.
func appendIP(dst []byte, from, to netip.Addr, proto, tos uint8, id, flags uint16) []byte {
	if from.Is4() != to.Is4() {
		panic("seal: a packet between two IP versions")
	}
	be := binary.BigEndian
	if from.Is4() {
		src, target := from.As4(), to.As4()
		dst = append(dst, 0x45, tos, 0, 0)
		dst = be.AppendUint16(dst, id)
		dst = be.AppendUint16(dst, flags)
		dst = append(dst, ttl, proto, 0, 0)
		return append(append(dst, src[:]...), target[:]...)
	}
	src, target := from.As16(), to.As16()
	dst = be.AppendUint32(dst, 6<<28|uint32(tos)<<20)
	dst = append(dst, 0, 0, proto, ttl)
	return append(append(dst, src[:]...), target[:]...)
}

// outer appends the outer header of a tunnel (RFC 4301 section 5.1.2). DSCP and
// ECN are the inner header's (RFC 6040 section 4.1), and so is DF; an IPv6
// packet, which nobody on the way may fragment, sets it.
func outer(dst []byte, a *sa.SA, proto uint8, id uint16, inner []byte) []byte {
	tos, df := inner[1], binary.BigEndian.Uint16(inner[6:])&dontFragment
	if inner[0]>>4 == 6 {
		tos, df = uint8(binary.BigEndian.Uint16(inner)>>4), dontFragment
	}
	return appendIP(dst, a.Src, a.Dst, proto, tos, id, df)
}

// mend gives the IP header its length and, in IPv4, its checksum. The error is
// ErrTooLong.
func mend(packet []byte) error {
	be := binary.BigEndian
	if packet[0]>>4 == 6 {
		if len(packet)-ipv6Len > 0xffff {
			return ErrTooLong
		}
		be.PutUint16(packet[4:], uint16(len(packet)-ipv6Len))
		return nil
	}
	if len(packet) > 0xffff {
		return ErrTooLong
	}
	be.PutUint16(packet[2:], uint16(len(packet)))
	be.PutUint16(packet[10:], 0)
	be.PutUint16(packet[10:], wire.Checksum(0, packet[:int(packet[0]&15)*4]))
	return nil
}

// mended is mend for packets that tests and tools build: too long a one is the
// programmer's error.
func mended(packet []byte) {
	if err := mend(packet); err != nil {
		panic(err)
	}
}

func appendUDP(dst []byte, src, dstPort uint16) []byte {
	dst = binary.BigEndian.AppendUint16(dst, src)
	dst = binary.BigEndian.AppendUint16(dst, dstPort)
	return append(dst, 0, 0, 0, 0)
}

func setUDPLen(datagram []byte) { binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram))) }

// sumUDP stores the checksum of the UDP datagram at packet[at:], for which 0
// stands for none (RFC 768, RFC 8200 section 8.1).
func sumUDP(packet []byte, at int) {
	sum := upperSum(packet, at, wire.ProtoUDP)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(packet[at+6:], sum)
}

// upperSum is the checksum over pseudo header and upper layer, whose own
// checksum field must be 0.
func upperSum(packet []byte, at int, proto uint8) uint16 {
	addresses := packet[12:ipv4Len]
	if packet[0]>>4 == 6 {
		addresses = packet[8:ipv6Len]
	}
	upper := packet[at:]
	pseudo := ^wire.Checksum(uint32(proto)+uint32(len(upper)), addresses)
	return wire.Checksum(uint32(pseudo), upper)
}

// UDP appends a complete IP packet of either version that carries payload in
// UDP, with right checksums. Addresses of two versions panic, and so does a
// packet over 65535 bytes.
func UDP(dst []byte, from, to netip.AddrPort, payload []byte) []byte {
	start := len(dst)
	dst = appendIP(dst, from.Addr(), to.Addr(), wire.ProtoUDP, 0, 0, 0)
	at := len(dst)
	dst = append(appendUDP(dst, from.Port(), to.Port()), payload...)
	setUDPLen(dst[at:])
	sumUDP(dst[start:], at-start)
	mended(dst[start:])
	return dst
}

// Echo appends a complete IP packet with an ICMP or ICMPv6 echo request. It
// panics as UDP does.
func Echo(dst []byte, from, to netip.Addr, id, seq uint16, payload []byte) []byte {
	start, be := len(dst), binary.BigEndian
	proto, request := uint8(protoICMP), uint8(8)
	if from.Is6() {
		proto, request = protoICMPv6, 128
	}
	dst = appendIP(dst, from, to, proto, 0, 0, 0)
	at := len(dst)
	dst = append(dst, request, 0, 0, 0)
	dst = append(be.AppendUint16(be.AppendUint16(dst, id), seq), payload...)
	sum := wire.Checksum(0, dst[at:])
	if proto == protoICMPv6 {
		sum = upperSum(dst[start:], at-start, proto)
	}
	be.PutUint16(dst[at+2:], sum)
	mended(dst[start:])
	return dst
}

// Options appends an IPv4 packet with more options at the end of its header:
// options as they are, with zeros (end of options) up to a multiple of 4. It
// panics where packet is no IPv4 packet or more than 40 bytes of options result.
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
		panic("seal: more than 40 bytes of IPv4 options")
	}
	dst[start] = 0x40 | byte(words)
	dst = append(dst, packet[p.Header:p.End]...)
	mended(dst[start:])
	return dst
}

// Extension appends an IPv6 packet with one more extension header, number
// proto, behind those that it has. Of header, whole as on the wire, only the
// first byte is changed: it names what follows. It panics where packet is no
// IPv6 packet.
func Extension(dst, packet []byte, proto uint8, header []byte) []byte {
	p := mustParse(packet, 6)
	start := len(dst)
	dst = append(dst, packet[:p.Header]...)
	dst[start+p.ProtoAt] = proto
	dst = append(dst, header...)
	dst[start+p.Header] = p.Proto
	dst = append(dst, packet[p.Header:p.End]...)
	mended(dst[start:])
	return dst
}

func mustParse(packet []byte, version uint8) wire.Packet {
	p, err := parse(packet)
	if err != nil || p.Version != version {
		panic("seal: not a packet of the IP version that this header belongs to")
	}
	return p
}

// AppendFrame appends an Ethernet frame that carries an IP packet of either
// version behind any number of VLAN tags, outermost first, each as on the wire:
// 0x8100_0064 is VLAN 100. The MAC addresses are locally administered. The
// frame is not padded to 60 bytes.
func AppendFrame(dst, packet []byte, tags ...uint32) []byte {
	dst = append(dst, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1)
	for _, tag := range tags {
		dst = binary.BigEndian.AppendUint32(dst, tag)
	}
	etherType := uint16(wire.EtherIPv4)
	if packet[0]>>4 == 6 {
		etherType = wire.EtherIPv6
	}
	return append(binary.BigEndian.AppendUint16(dst, etherType), packet...)
}
