package outbound

import (
	"time"

	"tapsec/wire"
)

// answersPerSecond bounds the ICMP errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4
// f). A flow needs one.
const answersPerSecond = 100

// answers bounds the ICMP errors to the stack.
type answers struct {
	now    time.Time // of the batch, read when first needed
	second time.Time // when the current second began
	sent   int       // in the current second
	frame  []byte
}

// allowed reports whether one more may be sent.
func (a *answers) allowed() bool {
	if a.now.IsZero() {
		a.now = time.Now()
	}
	if a.now.Sub(a.second) >= time.Second {
		a.second, a.sent = a.now, 0
	}
	a.sent++
	return a.sent <= answersPerSecond
}

// answer tells the stack that packet p is too long, and the MTU that fits, by
// "fragmentation needed" (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2).
// The source is the packet's destination: the one address that is certainly behind this
// interface, so that no reverse path filter drops the error.
func (s *Sender) answer(frame []byte, p *wire.Packet, mtu int) {
	a := &s.answers
	if s.config.Reply == nil || !answerable(frame, p) || !a.allowed() {
		s.counts[Unanswered]++
		return
	}
	a.frame = append(a.frame[:0], frame[6:12]...)
	a.frame = append(a.frame, frame[:6]...)
	a.frame = append(a.frame, frame[12:p.Start]...)
	packet := frame[p.Start:p.End]
	if p.Version == 6 {
		a.frame = appendTooBig(a.frame, packet, uint32(mtu))
	} else {
		a.frame = appendNeeded(a.frame, packet, uint16(mtu))
	}
	if s.config.Reply(a.frame) != nil {
		s.counts[Unanswered]++
		return
	}
	s.counts[Replies]++
}

// answerable reports whether an ICMP error is allowed: not about a later fragment or
// another ICMP error (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
func answerable(frame []byte, p *wire.Packet) bool {
	if p.Later {
		return false
	}
	if p.Header >= p.Reach {
		return true
	}
	switch kind := frame[p.Header]; p.Proto {
	case wire.ProtoICMP:
		return kind != 3 && kind != 4 && kind != 5 && kind != 11 && kind != 12
	case wire.ProtoICMPv6:
		return kind >= 128
	}
	return true
}

const icmpLen = 8

// appendNeeded appends "destination unreachable, fragmentation needed and DF set". It
// quotes as much of the packet as keeps within 576 bytes (RFC 1812 section 4.3.2.3).
func appendNeeded(dst, packet []byte, mtu uint16) []byte {
	const internetControl, ttl, unreachable, needed = 0xc0, 64, 3, 4
	quote := packet[:min(len(packet), minMTU-wire.IPv4Len-icmpLen)]
	start := len(dst)
	dst = append(dst, 0x45, internetControl)
	dst = be.AppendUint16(dst, uint16(wire.IPv4Len+icmpLen+len(quote)))
	dst = append(dst, 0, 0, 0, 0, ttl, wire.ProtoICMP, 0, 0)
	dst = append(append(dst, packet[16:20]...), packet[12:16]...)
	dst = append(dst, unreachable, needed, 0, 0, 0, 0)
	dst = append(be.AppendUint16(dst, mtu), quote...)
	ip, icmp := dst[start:start+wire.IPv4Len], dst[start+wire.IPv4Len:]
	be.PutUint16(ip[10:], wire.Checksum(0, ip))
	be.PutUint16(icmp[2:], icmpSum(ip, icmp))
	return dst
}

// appendTooBig appends "packet too big". It quotes as much of the packet as keeps within
// the least IPv6 MTU.
func appendTooBig(dst, packet []byte, mtu uint32) []byte {
	const hopLimit, tooBig = 64, 2
	quote := packet[:min(len(packet), leastIPv6-wire.IPv6Len-icmpLen)]
	start := len(dst)
	dst = append(dst, 0x60, 0, 0, 0)
	dst = be.AppendUint16(dst, uint16(icmpLen+len(quote)))
	dst = append(dst, wire.ProtoICMPv6, hopLimit)
	dst = append(append(dst, packet[24:40]...), packet[8:24]...)
	dst = append(dst, tooBig, 0, 0, 0)
	dst = append(be.AppendUint32(dst, mtu), quote...)
	ip, icmp := dst[start:start+wire.IPv6Len], dst[start+wire.IPv6Len:]
	be.PutUint16(icmp[2:], icmpSum(ip, icmp))
	return dst
}

// icmpSum is the checksum of an ICMP message after an IP header. ICMPv6's counts a
// pseudo-header (RFC 4443 section 2.3).
func icmpSum(ip, icmp []byte) uint16 {
	if ip[0]>>4 == 4 {
		return wire.Checksum(0, icmp)
	}
	pseudo := ^wire.Checksum(wire.ProtoICMPv6+uint32(len(icmp)), ip[8:wire.IPv6Len])
	return wire.Checksum(uint32(pseudo), icmp)
}
