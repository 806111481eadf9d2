package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"tapsec/wire"
)

// recompute is what an IPv4 header's checksum ought to be.
func recompute(ip []byte) uint16 {
	h := bytes.Clone(ip[:int(ip[0]&15)*4])
	h[10], h[11] = 0, 0
	return wire.Checksum(0, h)
}

// sameSum compares checksums in one's complement, where 0 and 0xffff are equal.
func sameSum(a, b uint16) bool { return a == b || a+b == 0xffff && (a == 0 || b == 0) }

// The incremental checksum is the recomputed one, and an error in it stays as
// it is (RFC 1624).
func TestStripTransportIPv4(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.IntRange(5, 15).Draw(t, "words")
		gone := rapid.IntRange(0, 60).Draw(t, "gone")
		n := rapid.IntRange(0, 100).Draw(t, "payload")
		behind := rapid.IntRange(0, 40).Draw(t, "behind")
		wrong := rapid.Uint16().Draw(t, "wrong")
		next := rapid.Byte().Draw(t, "next")
		header := words * 4
		total := header + gone + n + behind
		frame := make([]byte, 14+total+rapid.IntRange(0, 10).Draw(t, "padding"))
		copy(frame, rapid.SliceOfN(rapid.Byte(), len(frame), len(frame)).Draw(t, "bytes"))
		ip := frame[14:]
		ip[0], ip[6], ip[7] = 0x40|byte(words), 0, 0
		binary.BigEndian.PutUint16(ip[2:], uint16(total))
		binary.BigEndian.PutUint16(ip[10:], recompute(ip)^wrong)
		payload := bytes.Clone(ip[header+gone : header+gone+n])
		p, err := wire.ParseIP(frame, 14, len(frame), 4)
		if err != nil {
			t.Fatal(err)
		}
		stripped := p
		out := wire.StripTransport(frame, &stripped, p.Header+gone, n, next)
		if got, err := wire.ParseIP(out, 14, len(out), 4); err != nil || got != stripped {
			t.Fatalf("returned %+v, parsed %+v, %v", stripped, got, err)
		}
		if ip := out[14:]; len(ip) != header+n || ip[9] != next || !bytes.Equal(ip[header:], payload) {
			t.Fatalf("% x", ip)
		}
		if got, right := binary.BigEndian.Uint16(out[24:]), recompute(out[14:]); (wrong == 0) && !sameSum(got, right) {
			t.Fatalf("checksum %#04x, want %#04x", got, right)
		} else if !sameSum(wrong, 0) && sameSum(got, right) {
			t.Fatalf("a wrong checksum became the right one")
		}
	})
}

// Every checksum, right or wrong, changes by what the header changed by, carries
// included (RFC 1624 equation 3, in arithmetic modulo 65535).
func TestStripTransportEverySum(t *testing.T) {
	b := append([]byte{0x45, 0, 0, 60, 0, 1, 0, 0, 64, 50, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, make([]byte, 40)...)
	p, err := wire.ParseIP(b, 0, len(b), 4)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for sum := range 1 << 16 {
		frame := bytes.Clone(b)
		be.PutUint16(frame[10:], uint16(sum))
		q := p
		out := wire.StripTransport(frame, &q, 36, 4, 132)
		shrunk, proto := 60-24, 50-132
		before, after := int(^uint16(sum)), int(^be.Uint16(out[10:]))
		if (before-shrunk-proto-after)%0xffff != 0 {
			t.Fatalf("%#04x became %#04x", sum, be.Uint16(out[10:]))
		}
	}
}

// In IPv6 the payload length and the byte in front of the removed header change.
func TestStripTransportIPv6(t *testing.T) {
	for _, b := range packets(t) {
		p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if err != nil || p.Version != 6 || p.End-p.Header < 12 || p.Jumbo || p.Later {
			continue
		}
		frame := bytes.Clone(b)
		stripped := p
		out := wire.StripTransport(frame, &stripped, p.Header+5, 4, 17)
		got, err := wire.ParseIP(out, 0, len(out), 6)
		if err != nil || got != stripped || got.Proto != 17 || got.ProtoAt != p.ProtoAt || got.End != p.Header+4 || len(out) != got.End {
			t.Errorf("% x\nparsed %+v, returned %+v, %v", out, got, stripped, err)
		}
		for i := range p.Header {
			if out[i] != b[i] && i != 4 && i != 5 && i != p.ProtoAt {
				t.Errorf("% x: byte %d changed", out, i)
			}
		}
		if !bytes.Equal(out[p.Header:], b[p.Header+5:p.Header+9]) {
			t.Errorf("% x: payload of % x", out, b)
		}
	}
}

// A tunnel's inner packet comes out unchanged, at its own length, behind the
// outer frame's Ethernet header and tags.
func TestStripTunnel(t *testing.T) {
	for _, inner := range packets(t) {
		for _, tags := range [][]byte{nil, {0x81, 0, 0, 7}} {
			link := append(bytes.Repeat([]byte{2}, 12), tags...)
			frame := append(bytes.Clone(link), 8, 0)
			l3 := len(frame)
			frame = append(frame, make([]byte, 36)...)
			start := len(frame)
			frame = append(append(frame, inner...), make([]byte, 50)...)
			p, err := wire.ParseIP(frame, start, len(frame)-50, inner[0]>>4)
			if err != nil {
				continue
			}
			want := append(link, 8, 0)
			if inner[0]>>4 == 6 {
				want = append(link, 0x86, 0xdd)
			}
			if got := wire.StripTunnel(frame, l3, &p); !bytes.Equal(got, append(want, inner...)) {
				t.Errorf("% x\nwant % x% x", got, want, inner)
			}
		}
	}
}

// Checksum against the example of RFC 1071 section 3, and its parts in any cut.
func TestChecksum(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if got := wire.Checksum(0, b); got != ^uint16(0xddf2) {
		t.Errorf("%#04x, want %#04x", got, ^uint16(0xddf2))
	}
	if got := wire.Checksum(uint32(^wire.Checksum(0, b[:4])), b[4:]); got != ^uint16(0xddf2) {
		t.Errorf("in two parts: %#04x", got)
	}
	if got := wire.Checksum(0, []byte{0xab}); got != ^uint16(0xab00) {
		t.Errorf("one byte: %#04x", got)
	}
}

// The parser and the strippers allocate nothing.
func TestNoAllocations(t *testing.T) {
	b := packets(t)[12]
	if n := testing.AllocsPerRun(100, func() {
		p, err := wire.ParseIP(b, 0, len(b), 6)
		if err != nil {
			t.Fatal(err)
		}
		wire.StripTransport(b, &p, p.Header, p.End-p.Header, p.Proto)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// UDP needs its whole header.
func TestUDP(t *testing.T) {
	b := []byte{0x12, 0x34, 0x11, 0x94, 0, 20, 0, 0}
	src, dst, length, ok := wire.UDP(b)
	if src != 0x1234 || dst != 4500 || length != 20 || !ok {
		t.Errorf("%d %d %d %v", src, dst, length, ok)
	}
	if _, _, _, ok := wire.UDP(b[:7]); ok {
		t.Error("seven bytes were read as a header")
	}
}

// Only versions 4 and 6 are IP, whatever announces another one: a first nibble of 7 is none that IPv6 has.
func TestOtherVersions(t *testing.T) {
	for version := range byte(16) {
		packet := make([]byte, 60)
		packet[0], packet[3], packet[6] = version<<4|5, 60, wire.ProtoNoNext // IPv4 has the length there, IPv6 its next header
		if p, ok := wire.Addresses(packet, 0); ok != (version == 4 || version == 6) {
			t.Errorf("version %d: found a packet %v, of version %d", version, ok, p.Version)
		}
	}
}
