package wire_test

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"tapsec/wire"
)

func TestHeaderSum(t *testing.T) {
	b := classed("10.0.0.1:1", 0)
	p, _ := wire.Addresses(b, 0)
	if !wire.HeaderSum(b, &p) {
		t.Error("a right checksum is called wrong")
	}
	b[8] ^= 1
	if wire.HeaderSum(b, &p) {
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
		wire.UpperSum(b, &p)
		if sum(b) != sum(right) || !verifies(b, p) {
			t.Errorf("%s: UDP checksum %#x, want %#x", from, sum(b), sum(right))
		}
		padded, q := append(b, 1, 2, 3), p // TFC padding in transport mode
		q.Reach += 3
		wire.UpperSum(padded, &q)
		if sum(padded) != sum(right) {
			t.Errorf("%s: with bytes behind it UDP checksum %#x, want %#x", from, sum(padded), sum(right))
		}
		b[p.Header+6], b[p.Header+7] = 0, 0
		wire.UpperSum(b, &p)
		if kept := sum(b) == 0; kept != (p.Version == 4) {
			t.Errorf("%s: checksum none became %#x", from, sum(b))
		}

		tcp := append([]byte(nil), right...)
		tcp = append(tcp[:p.Header], make([]byte, 20)...)
		q.Proto, q.Reach = wire.ProtoTCP, len(tcp)
		wire.UpperSum(tcp, &q)
		if !verifies(tcp, q) {
			t.Errorf("%s: the TCP checksum does not verify", from)
		}
	}
}

// verifies adds up the segment of a packet and its pseudo-header, as a receiver does.
func verifies(b []byte, p wire.Packet) bool {
	pseudo := append(append([]byte(nil), p.Src.AsSlice()...), p.Dst.AsSlice()...)
	pseudo = append(pseudo, 0, p.Proto, 0, byte(p.Reach-p.Header))
	return wire.Checksum(0, append(pseudo, b[p.Header:p.Reach]...)) == 0
}

// RFC 768: a checksum that comes to zero is sent as all ones, since zero is none.
func TestUpperSumOfZero(t *testing.T) {
	for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
		b := classed(from, 0)
		p, _ := wire.Addresses(b, 0)
		sum, data := b[p.Header+6:p.Header+8], b[p.Header+8:]
		data[0], data[1] = 0, 0
		wire.UpperSum(b, &p)
		copy(data, sum) // the rest comes to what is missing to all ones
		wire.UpperSum(b, &p)
		if got := binary.BigEndian.Uint16(sum); got != 0xffff {
			t.Errorf("%s: checksum %#x, want 0xffff", from, got)
		}
	}
}

// A checksum is right, wrong, or what a NIC was to complete; and it stays as it is.
func TestCheckUpperSum(t *testing.T) {
	for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
		b := classed(from, 0)
		p, _ := wire.Addresses(b, 0)
		is := func(b []byte, p wire.Packet, want wire.Sum) {
			t.Helper()
			before := string(b)
			if got := wire.CheckUpperSum(b, &p); got != want || string(b) != before {
				t.Errorf("%s: found %d, want %d", from, got, want)
			}
		}
		is(b, p, wire.SumRight)
		b[len(b)-1] ^= 1
		is(b, p, wire.SumWrong)
		wire.PartialSum(b, &p)
		is(b, p, wire.SumPartial)
		fragment := p
		fragment.Fragment = true
		is(b, fragment, wire.SumNone)
		b[p.Header+6], b[p.Header+7] = 0, 0
		if p.Version == 4 {
			is(b, p, wire.SumNone)
		}
	}
}

// The sum is that of RFC 1071 section 4.1, word by word.
func TestChecksumAgainstWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
		if rapid.Bool().Draw(t, "ones") {
			for i := range b {
				b[i] = 0xff
			}
		}
		start := rapid.Uint32().Draw(t, "start")
		sum := uint64(start)
		for i, v := range b {
			if i%2 == 0 {
				sum += uint64(v) << 8
			} else {
				sum += uint64(v)
			}
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if got := wire.Checksum(start, b); got != ^uint16(sum) {
			t.Fatalf("%#x, want %#x", got, ^uint16(sum))
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	packet := make([]byte, 1400)
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		wire.Checksum(0, packet)
	}
}
