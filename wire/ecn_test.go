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
					ok := wire.PropagateECN(frame, &o, &i)
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
					if !wire.HeaderSum(frame, &i) {
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
