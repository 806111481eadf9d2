package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/wire"
)

// judgeFragment compares ParseFragment with what gopacket finds in a packet.
func judgeFragment(t *testing.T, b []byte, p wire.Packet) {
	t.Helper()
	got := wire.ParseFragment(b, &p)
	want := wire.Fragment{Head: p.Header, Data: p.Header, NextAt: p.ProtoAt, Next: p.Proto}
	if p.Version == 4 {
		ip := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		want.ID, want.Offset, want.More = uint32(ip.Id), int(ip.FragOffset)*8, ip.Flags&layers.IPv4MoreFragments != 0
	} else {
		packet := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default)
		h := packet.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
		want.ID, want.Offset, want.More = h.Identification, int(h.FragmentOffset)*8, h.MoreFragments
		want.Head = bytes.Index(b, h.Contents)
		want.Data, want.Next = want.Head+8, uint8(h.NextHeader)
		want.NextAt = bytes.IndexByte(b[:want.Head], wire.ProtoFragment)
	}
	if got != want {
		t.Errorf("% x:\n got %+v\nwant %+v", b, got, want)
	}
}

// gopacket finds the same in every fragment it made: behind other extension
// headers, in front of others, first, later and atomic.
func TestParseFragmentAgainstGopacket(t *testing.T) {
	n := 0
	for _, b := range packets(t) {
		p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if err != nil || !p.Fragment {
			continue
		}
		judgeFragment(t, b, p)
		n++
	}
	if n < 6 {
		t.Errorf("only %d fragments", n)
	}
}

// Of two fragment headers the first counts, and a destination header behind one
// is the datagram's.
func TestParseFragmentHeaders(t *testing.T) {
	head := append([]byte{0x60, 0, 0, 0, 0, 24, 44, 64}, make([]byte, 32)...)
	b := append(head, 44, 0, 0, 1, 1, 2, 3, 4, 60, 0, 0, 8, 5, 6, 7, 8, 50, 0, 1, 4, 0, 0, 0, 0)
	p, err := wire.ParseIP(b, 0, len(b), 6)
	want := wire.Fragment{ID: 0x01020304, More: true, Head: 40, Data: 48, NextAt: 6, Next: 44}
	if got := wire.ParseFragment(b, &p); err != nil || got != want {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}

	// A longer header in front, and behind it one that is the datagram's.
	long := append(bytes.Clone(head), append([]byte{44, 1}, make([]byte, 14)...)...)
	long[5], long[6] = 40, 60
	long = append(long, b[40:]...)
	p, err = wire.ParseIP(long, 0, len(long), 6)
	behind := wire.Fragment{ID: want.ID, More: true, Head: 56, Data: 64, NextAt: 40, Next: 44}
	if got := wire.ParseFragment(long, &p); err != nil || got != behind {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, behind)
	}

	b[40], b[48] = 60, 50
	p, err = wire.ParseIP(b, 0, len(b), 6)
	want.Next = 60
	if got := wire.ParseFragment(b, &p); err != nil || got != want || p.Proto != 50 {
		t.Errorf("%v\n got %+v\nwant %+v, then ESP", err, got, want)
	}
}

// Unfragment makes of the head of a first fragment and more data a packet that
// gopacket takes as whole, and that differs in nothing else.
func TestUnfragment(t *testing.T) {
	for _, b := range packets(t) {
		p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if err != nil || !p.Fragment {
			continue
		}
		f := wire.ParseFragment(b, &p)
		for _, congested := range []bool{false, true} {
			frame := append(bytes.Repeat([]byte{9}, 14), b[:f.Head]...)
			frame = append(frame, bytes.Repeat([]byte{7}, 1000)...)
			if p.Version == 4 {
				frame[14+6] |= 0x40 // DF
				frame[14+10], frame[14+11] = 0x12, 0x34
			}
			was := bytes.Clone(frame)
			whole := f
			whole.NextAt, whole.Head = f.NextAt+14, f.Head+14
			wire.Unfragment(frame, 14, whole, congested)
			q, err := wire.ParseIP(frame, 14, len(frame), p.Version)
			if err != nil || q.Fragment || q.End != len(frame) || !wire.HeaderSum(frame, &q) {
				t.Errorf("% x: %+v, %v", frame[14:14+f.Head], q, err)
			}
			if got, want := wire.ECN(frame, &q), wire.ECN(b, &p); congested && got != 3 || !congested && got != want {
				t.Errorf("ECN %d, was %d, congested %v", got, want, congested)
			}
			if p.Version == 4 && binary.BigEndian.Uint16(frame[14+6:]) != 0x4000 {
				t.Errorf("flags and offset % x", frame[14+6:14+8])
			}
			for _, at := range untold(p.Version, whole) {
				frame[at], was[at] = 0, 0
			}
			if !bytes.Equal(frame, was) {
				t.Errorf("changed too much:\n% x\n% x", frame[:60], was[:60])
			}
		}
	}
}

// untold are the bytes that Unfragment may change.
func untold(version uint8, f wire.Fragment) []int {
	if version == 4 {
		return []int{15, 16, 17, 20, 21, 24, 25}
	}
	return []int{15, 18, 19, f.NextAt}
}

// ECN has the field of both versions.
func TestECN(t *testing.T) {
	for ecn := range uint8(4) {
		for _, from := range []string{"10.0.0.1:1", "[2001:db8::1]:1"} {
			b := classed(from, 46<<2|ecn)
			p, _ := wire.Addresses(b, 0)
			if got := wire.ECN(b, &p); got != ecn {
				t.Errorf("%s: %d, want %d", from, got, ecn)
			}
		}
	}
}

// Whatever ParseIP calls a fragment can be looked at.
func FuzzParseFragment(f *testing.F) {
	for _, p := range packets(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<16-1 {
			return
		}
		p, _ := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if !p.Fragment {
			return
		}
		f := wire.ParseFragment(b, &p)
		if f.Head > f.Data || f.Data > p.Reach || f.NextAt >= f.Head {
			t.Fatalf("% x: %+v of %+v", b, f, p)
		}
	})
}
