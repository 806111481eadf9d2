package wire

import (
	"encoding/binary"
	"math/bits"
)

// HeaderSum reports whether the header checksum of packet p is right. IPv6 has none, which
// counts as right.
func HeaderSum(frame []byte, p *Packet) bool {
	if p.Version != 4 {
		return true
	}
	length := int(frame[p.Start]&15) * 4
	return Checksum(0, frame[p.Start:p.Start+length]) == 0
}

// UpperSum recomputes the checksum of the TCP segment or UDP datagram in p, over the
// addresses in p's header (RFC 3948 section 3.1.2). A UDP checksum of zero, which means
// none, stays zero over IPv4. Bytes beyond a datagram's own length (RFC 4303 section 2.7)
// do not count. Other protocols, and segments too short for a checksum, are left alone.
func UpperSum(frame []byte, p *Packet) {
	sum, b := upperSum(frame, p)
	if sum == nil {
		return
	}
	sum[0], sum[1] = 0, 0
	s := Checksum(pseudoSum(p, len(b)), b)
	if p.Proto == ProtoUDP && s == 0 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(sum, s)
}

// PartialSum replaces that checksum by what a host leaves there for its NIC to complete:
// the sum of the pseudo-header.
func PartialSum(frame []byte, p *Packet) {
	if sum, b := upperSum(frame, p); sum != nil {
		binary.BigEndian.PutUint16(sum, ^Checksum(pseudoSum(p, len(b)), nil))
	}
}

// Sum says what CheckUpperSum found.
type Sum uint8

// What may be found.
const (
	SumNone    Sum = iota // no checksum, or not all that it covers
	SumRight              //
	SumPartial            // what a NIC was to complete
	SumWrong              //
)

// CheckUpperSum checks the checksum that UpperSum computes, and changes nothing.
func CheckUpperSum(frame []byte, p *Packet) Sum {
	sum, b := upperSum(frame, p)
	switch {
	case sum == nil || p.Fragment || p.Short:
		return SumNone
	case Checksum(pseudoSum(p, len(b)), b) == 0:
		return SumRight
	}
	if MayBePartial(frame, p) {
		return SumPartial
	}
	return SumWrong
}

// MayBePartial reports whether the checksum that UpperSum computes is what a NIC was to complete, or by
// chance the same: one right one in 65536 is. It looks at the headers alone.
func MayBePartial(frame []byte, p *Packet) bool {
	sum, b := upperSum(frame, p)
	if sum == nil || p.Fragment || p.Short {
		return false
	}
	found := binary.BigEndian.Uint16(sum)
	for _, n := range []int{len(b), 0} { // a NIC that cuts segments adds their lengths
		if found == ^Checksum(pseudoSum(p, n), nil) {
			return true
		}
	}
	return false
}

// upperSum finds the checksum in the segment that p carries, and what it covers; nil if
// there is none.
func upperSum(frame []byte, p *Packet) (sum, covered []byte) {
	const tcpSum, udpSum = 16, 6
	b := frame[p.Header:p.Reach]
	at := tcpSum
	if p.Proto == ProtoUDP {
		at = udpSum
	}
	if p.Proto != ProtoTCP && p.Proto != ProtoUDP || len(b) < at+2 {
		return nil, nil
	}
	sum = b[at : at+2]
	if p.Proto == ProtoUDP && p.Version == 4 && sum[0]|sum[1] == 0 {
		return nil, nil
	}
	if n := int(binary.BigEndian.Uint16(b[4:])); p.Proto == ProtoUDP && n >= UDPLen && n < len(b) {
		b = b[:n]
	}
	return sum, b
}

// pseudoSum is the partial sum of the pseudo-header (RFC 793 section 3.1, RFC
// 8200 section 8.1).
func pseudoSum(p *Packet, length int) uint32 {
	sum := uint32(p.Proto) + uint32(length)
	src, dst := p.Src.As16(), p.Dst.As16()
	from := 0
	if p.Version == 4 {
		from = 12
	}
	for i := from; i < 16; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(src[i:])) + uint32(binary.BigEndian.Uint16(dst[i:]))
	}
	return sum
}

// updateChecksum is RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
func updateChecksum(sum, was, is uint16) uint16 {
	s := uint32(^sum) + uint32(^was) + uint32(is)
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}

// Checksum is the Internet checksum of b added to the partial sum start (RFC 1071),
// complemented and ready to be stored. It adds eight bytes at a time in the byte order of
// most machines, and swaps the result (section 2 (B)).
func Checksum(start uint32, b []byte) uint16 {
	order := binary.LittleEndian
	start = start>>16 + start&0xffff
	sum := uint64(bits.ReverseBytes16(uint16(start>>16 + start)))
	var sum2, carry uint64
	for ; len(b) >= 64; b = b[64:] { // two chains of additions run side by side
		x := (*[64]byte)(b)
		sum, carry = bits.Add64(sum, order.Uint64(x[0:]), 0)
		sum, carry = bits.Add64(sum, order.Uint64(x[8:]), carry)
		sum, carry = bits.Add64(sum, order.Uint64(x[16:]), carry)
		sum, carry = bits.Add64(sum, order.Uint64(x[24:]), carry)
		sum += carry
		sum2, carry = bits.Add64(sum2, order.Uint64(x[32:]), 0)
		sum2, carry = bits.Add64(sum2, order.Uint64(x[40:]), carry)
		sum2, carry = bits.Add64(sum2, order.Uint64(x[48:]), carry)
		sum2, carry = bits.Add64(sum2, order.Uint64(x[56:]), carry)
		sum2 += carry
	}
	sum, carry = bits.Add64(sum, sum2, 0)
	sum = addRest(sum+carry, b)
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^bits.ReverseBytes16(uint16(sum))
}

// addRest adds less than 64 bytes: most sums are those of headers.
func addRest(sum uint64, b []byte) uint64 {
	order := binary.LittleEndian
	var carry, last uint64
	for ; len(b) >= 16; b = b[16:] {
		sum, carry = bits.Add64(sum, order.Uint64(b), 0)
		sum, carry = bits.Add64(sum, order.Uint64(b[8:]), carry)
		sum += carry
	}
	if len(b) >= 8 {
		sum, carry = bits.Add64(sum, order.Uint64(b), 0)
		sum, b = sum+carry, b[8:]
	}
	if len(b) >= 4 {
		last, b = uint64(order.Uint32(b)), b[4:]
	}
	if len(b) >= 2 {
		last, b = last+uint64(order.Uint16(b)), b[2:]
	}
	if len(b) > 0 {
		last += uint64(b[0])
	}
	sum, carry = bits.Add64(sum, last, 0)
	return sum + carry
}
