package wire_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/wire"
)

// RFC 6040 section 4.2, figure 4: what becomes of the inner field, 0xff a drop.
// Fields are numbered 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
var ecnTable = [4][4]uint8{ // [inner][outer]
	0: {0, 0, 0, 0xff},
	1: {1, 1, 1, 3},
	2: {2, 1, 2, 3},
	3: {3, 3, 3, 3},
}

func TestPropagateECN(t *testing.T) {
	const dscp = 46 << 2
	for _, outer := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
		for _, inner := range []string{"10.0.0.1:1", "[2001:db8::2]:1"} {
			for in := range uint8(4) {
				for out := range uint8(4) {
					frame := classed(outer, out)
					at := len(frame)
					frame = append(frame, classed(inner, dscp|in)...)
					o, _ := wire.Addresses(frame[:at], 0)
					i, _ := wire.Addresses(frame, at)
					ok := wire.PropagateECN(frame, o, i)
					want := ecnTable[in][out]
					if ok != (want != 0xff) {
						t.Errorf("inner %d outer %d: kept %v", in, out, ok)
					}
					if want == 0xff {
						want = in
					}
					if got := class(frame[at:]); got != dscp|want || class(frame) != out {
						t.Errorf("inner %d outer %d: traffic class %#x, want %#x", in, out, got, dscp|want)
					}
					if !wire.HeaderSum(frame, i) {
						t.Errorf("inner %d outer %d: header checksum is wrong now", in, out)
					}
				}
			}
		}
	}
}

// classed is a packet with that traffic class.
func classed(from string, class uint8) []byte {
	a := netip.MustParseAddrPort(from)
	b := forge.UDP(nil, a, a, []byte("payload"))
	if a.Addr().Is6() {
		binary.BigEndian.PutUint16(b, 6<<12|uint16(class)<<4)
		return b
	}
	b[1] = class
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], wire.Checksum(0, b[:20]))
	return b
}

func class(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[1]
	}
	return uint8(binary.BigEndian.Uint16(b) >> 4)
}

func TestHeaderSum(t *testing.T) {
	b := classed("10.0.0.1:1", 0)
	p, _ := wire.Addresses(b, 0)
	if !wire.HeaderSum(b, p) {
		t.Error("a right checksum is called wrong")
	}
	b[8] ^= 1
	if wire.HeaderSum(b, p) {
		t.Error("a wrong checksum is called right")
	}
}

// A segment whose addresses changed on the way has a right checksum again; an
// IPv4 UDP checksum of zero stays.
func TestUpperSum(t *testing.T) {
	for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
		right := classed(from, 0)
		p, _ := wire.Addresses(right, 0)
		sum := func(b []byte) uint16 { return binary.BigEndian.Uint16(b[p.Header+6:]) }
		b := append([]byte(nil), right...)
		b[p.Header+6] ^= 0x55
		wire.UpperSum(b, p)
		if sum(b) != sum(right) {
			t.Errorf("%s: UDP checksum %#x, want %#x", from, sum(b), sum(right))
		}
		padded, q := append(b, 1, 2, 3), p // TFC padding in transport mode
		q.Reach += 3
		wire.UpperSum(padded, q)
		if sum(padded) != sum(right) {
			t.Errorf("%s: with bytes behind it UDP checksum %#x, want %#x", from, sum(padded), sum(right))
		}
		b[p.Header+6], b[p.Header+7] = 0, 0
		wire.UpperSum(b, p)
		if kept := sum(b) == 0; kept != (p.Version == 4) {
			t.Errorf("%s: checksum none became %#x", from, sum(b))
		}

		tcp := append([]byte(nil), right...)
		tcp = append(tcp[:p.Header], make([]byte, 20)...)
		q.Proto, q.Reach = wire.ProtoTCP, len(tcp)
		wire.UpperSum(tcp, q)
		pseudo := append(append([]byte(nil), q.Src.AsSlice()...), q.Dst.AsSlice()...)
		pseudo = append(pseudo, 0, wire.ProtoTCP, 0, 20)
		if wire.Checksum(0, append(pseudo, tcp[p.Header:]...)) != 0 {
			t.Errorf("%s: the TCP checksum does not verify", from)
		}
	}
}

// RFC 768: a checksum that comes to zero is sent as all ones, since zero is none.
func TestUpperSumOfZero(t *testing.T) {
	for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
		b := classed(from, 0)
		p, _ := wire.Addresses(b, 0)
		sum, data := b[p.Header+6:p.Header+8], b[p.Header+8:]
		data[0], data[1] = 0, 0
		wire.UpperSum(b, p)
		copy(data, sum) // the rest comes to what is missing to all ones
		wire.UpperSum(b, p)
		if got := binary.BigEndian.Uint16(sum); got != 0xffff {
			t.Errorf("%s: checksum %#x, want 0xffff", from, got)
		}
	}
}
