package fragment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"tapsec/status"
	"tapsec/wire"
)

const second = int64(time.Second)

// plain is a datagram without anything special.
func plain(version, length int) *datagramSpec {
	return &datagramSpec{version: version, link: bytes.Repeat([]byte{2}, 12), id: 7, next: 50, src: 1, dst: 2, data: noise(1, length)}
}

// step is a fragment and what must become of it.
type step struct {
	offset, end int
	more        bool
	want        Result
}

// bench is a pair and the clock of a test.
type bench struct {
	*testing.T
	*pair
	now int64
}

func newBench(t *testing.T, l Limits) *bench { return &bench{t, newPair(l), 5 * second} }

func (b *bench) step(s *datagramSpec, steps ...step) (whole []byte) {
	b.Helper()
	for _, p := range steps {
		whole = b.frame(s.fragment(p.offset, p.end, p.more, s.class), p.want)
	}
	return whole
}

func (b *bench) frame(frame []byte, want Result) []byte {
	b.Helper()
	whole, r := b.add(b, frame, 0, b.now)
	if r != want {
		b.Fatalf("%v, want %v", r, want)
	}
	return whole
}

// Each kind of overlap loses the datagram in either order, and what is still to
// come of it, until its time is over (RFC 5722 section 4, RFC 8200 section 4.5).
func TestOverlap(t *testing.T) {
	for _, version := range []int{4, 6} {
		for name, c := range map[string][2]step{
			"into the next one":     {{0, 24, true, Held}, {16, 40, true, Overlap}},
			"inside":                {{0, 40, true, Held}, {8, 16, true, Overlap}},
			"inside, same begin":    {{8, 40, true, Held}, {8, 16, true, Overlap}},
			"inside, same end":      {{8, 40, true, Held}, {32, 40, true, Overlap}},
			"one unit":              {{0, 16, true, Held}, {8, 24, true, Overlap}},
			"into another chunk":    {{1976, 1984, true, Held}, {0, 1992, true, Overlap}},
			"within another chunk":  {{1976, 1992, true, Held}, {1984, 1992, true, Overlap}},
			"the tail of the last":  {{40, 51, false, Held}, {32, 48, true, Overlap}},
			"around, over 2 chunks": {{1984, 3968, true, Held}, {1976, 3976, true, Overlap}},
		} {
			for _, order := range [][2]int{{0, 1}, {1, 0}} {
				t.Run(fmt.Sprintf("%d %s %d", version, name, order[0]), func(t *testing.T) {
					b := newBench(t, Limits{})
					s := plain(version, 4000)
					first, then := c[order[0]], c[order[1]]
					first.want, then.want = Held, Overlap
					b.step(s, first, then, step{3976, 3984, true, Overlap}, step{3984, 3999, false, Overlap})
					if got := b.b.Stats(); got.Bytes != 0 || got.Datagrams != 1 {
						t.Errorf("what is lost still takes memory: %+v", got)
					}
					b.now += 30*second - 1
					b.step(s, step{0, 16, true, Overlap})
					b.now++
					b.step(s, step{0, 16, true, Held}, step{16, 27, false, Whole})
				})
			}
		}
	}
}

// Fragments that together cover what one held covers are no duplicates of it, nor
// is one that covers several held.
func TestSameBytesCutOtherwise(t *testing.T) {
	for _, version := range []int{4, 6} {
		b := newBench(t, Limits{})
		b.step(plain(version, 100), step{0, 16, true, Held}, step{16, 32, true, Held}, step{0, 32, true, Overlap})
		s := plain(version, 100)
		s.id++
		b.step(s, step{0, 16, true, Held}, step{16, 32, true, Held}, step{8, 24, true, Overlap})
		s.id++
		b.step(s, step{0, 24, true, Held}, step{24, 40, true, Held}, step{16, 40, true, Overlap})
		s.id++
		b.step(s, step{0, 24, true, Held}, step{24, 40, true, Held}, step{24, 32, true, Overlap})
		clear(s.data) // as memory is in which nothing has been
		newBench(t, Limits{}).step(s, step{8, 16, true, Held}, step{8, 24, true, Overlap})
	}
}

// A fragment that comes twice is ignored; one at the same place with other bytes
// overlaps (RFC 8200 section 4.5). After the datagram is whole it is forgotten.
func TestDuplicate(t *testing.T) {
	for _, version := range []int{4, 6} {
		b := newBench(t, Limits{})
		s := plain(version, 4000)
		b.step(s, step{3992, 3999, false, Held}, step{3992, 3999, false, Duplicate}, step{0, 2000, true, Held},
			step{0, 2000, true, Duplicate}, step{3992, 3999, false, Duplicate}, step{2000, 3992, true, Whole},
			step{2000, 3992, true, Held}, step{2000, 3992, true, Duplicate})
		s.data[3991]++
		b.step(s, step{2000, 3992, true, Overlap})
		s.id++
		b.step(s, step{0, 2000, true, Held})
		b.step(s, step{2000, 2008, true, Held}, step{0, 2000, true, Duplicate})
		s.data[0]++ // in the first of two chunks
		b.step(s, step{0, 2000, true, Overlap})
	}
}

// The end is where the last fragment ends, and only one is the last.
func TestBadEnd(t *testing.T) {
	for _, version := range []int{4, 6} {
		for name, steps := range map[string][]step{
			"behind the last":        {{16, 32, false, Held}, {32, 40, true, BadEnd}},
			"ends with the last":     {{16, 32, false, Held}, {24, 32, true, BadEnd}},
			"last with more":         {{16, 32, true, Held}, {16, 32, false, BadEnd}},
			"more with last":         {{16, 32, false, Held}, {16, 32, true, BadEnd}},
			"last too early":         {{32, 40, true, Held}, {16, 24, false, BadEnd}},
			"too early, in disorder": {{32, 40, true, Held}, {8, 16, true, Held}, {16, 24, false, BadEnd}},
			"two last":               {{16, 32, false, Held}, {40, 48, false, BadEnd}},
			"last one byte longer":   {{16, 29, false, Held}, {16, 30, false, BadEnd}},
		} {
			t.Run(fmt.Sprintf("%d %s", version, name), func(t *testing.T) {
				b := newBench(t, Limits{})
				b.step(plain(version, 100), append(steps, step{0, 8, true, BadEnd})...)
			})
		}
	}
}

// A fragment whose length cannot be is gone, and no harm done to the others.
func TestBadLength(t *testing.T) {
	for _, version := range []int{4, 6} {
		b := newBench(t, Limits{})
		s := plain(version, 100)
		b.step(s, step{0, 16, true, Held}, step{16, 25, true, BadLength}, step{16, 16, true, BadLength},
			step{16, 16, false, BadLength}, step{0, 7, true, BadLength}, step{0, 0, true, BadLength})
		cut := s.fragment(16, 32, true, 0)
		b.frame(cut[:len(cut)-1], BadLength)
		b.step(s, step{16, 33, false, Whole})
		if n := b.b.Stats().Datagrams; n != 0 {
			t.Errorf("%d datagrams were begun", n)
		}
	}
	jumbo := plain(6, 16).fragment(8, 16, true, 0)
	jumbo[18], jumbo[19] = 0, 0
	newBench(t, Limits{}).frame(jumbo, BadLength)
}

// A frame of 65535 bytes is the longest, wherever the head comes from.
func TestTooLong(t *testing.T) {
	for _, tags := range []string{"", "\x81\x00\x00\x07", "\x88\xa8\x00\x07\x81\x00\x00\x08"} {
		for _, version := range []int{4, 6} {
			s := plain(version, 1<<17)
			s.link = append(s.link, tags...)
			longest := 65535 - len(s.link) - 2 - map[int]int{4: 20, 6: 40}[version]
			s.options = nil
			half := longest / 16 * 8
			b := newBench(t, Limits{})
			whole := b.step(s, step{half, longest, false, Held}, step{0, half, true, Whole})
			if len(whole) != 65535 {
				t.Errorf("%d bytes", len(whole))
			}
			b.step(s, step{half, longest + 1, false, TooLong}, step{half, longest, false, Held}, step{0, half, true, Whole})
			b.frame(far(s), TooLong)

			s.options = make([]byte, 4) // the first fragment's head is longer than the others'
			s.head, s.numbers = [][]byte{make([]byte, 8)}, []byte{60}
			long := plain(version, 1<<17)
			long.link = s.link
			b.step(long, step{half, longest, false, Held})
			b.step(s, step{0, half, true, TooLong}, step{8, 16, true, TooLong})
			if got := b.b.Stats(); got.Bytes != 0 {
				t.Errorf("what is lost still takes memory: %+v", got)
			}
		}
	}
}

// far is a fragment at the furthest offset there is.
func far(s *datagramSpec) []byte { return s.fragment(65528, 65536+1000, false, 0) }

// An atomic fragment is whole, with others of its datagram held or lost, which it
// leaves alone (RFC 6946 section 4; docs/contract.md, Headers in detail).
func TestAtomic(t *testing.T) {
	b := newBench(t, Limits{})
	s := plain(6, 100)
	s.head, s.numbers = [][]byte{make([]byte, 8), {0, 1, 0, 0, 15: 9}}, []byte{0, 60}
	atomic := func(n int) {
		t.Helper()
		short := *s
		short.data = s.data[:n]
		if whole := b.step(s, step{0, n, false, Whole}); !bytes.Equal(whole, short.whole()) {
			t.Errorf("\n got % x\nwant % x", whole, short.whole())
		}
	}
	atomic(13)
	b.step(s, step{0, 16, true, Held}, step{24, 99, false, Held})
	atomic(100)
	atomic(1)
	b.step(s, step{16, 24, true, Whole}, step{0, 16, true, Held}, step{8, 24, true, Overlap})
	atomic(40)
	s.next = 59
	atomic(0)
}

// RFC 3168 section 5.3, and what Linux drops besides: a bit for each field, not-ECT
// first, and what the whole has if its first fragment has the least of them.
func TestECN(t *testing.T) {
	for _, version := range []int{4, 6} {
		for met := 1; met < 16; met++ {
			b := newBench(t, Limits{})
			s := plain(version, 100)
			const dscp = 46 << 2
			var fields []byte
			for ecn := range byte(4) {
				if met>>ecn&1 != 0 {
					fields = append(fields, ecn)
				}
			}
			for i, ecn := range fields {
				b.frame(s.fragment(i*8, i*8+8, true, dscp|ecn), Held)
			}
			want, result := fields[0], Whole
			if met&1 != 0 && met != 1 {
				result = ECNMismatch
			} else if met&8 != 0 {
				want = 3
			}
			whole := b.frame(s.fragment(len(fields)*8, 50, false, dscp|fields[len(fields)-1]), result)
			if result == ECNMismatch {
				b.frame(s.fragment(0, 8, true, dscp), ECNMismatch)
				continue
			}
			p, err := wire.ParseIP(whole, 14, len(whole), whole[14]>>4)
			if err != nil || wire.ECN(whole, &p) != want || !wire.HeaderSum(whole, &p) {
				t.Errorf("fields %d: % x, want ECN %d", fields, whole[14:34], want)
			}
		}
	}
}

// What makes one datagram: in IPv4 the protocol too, in IPv6 not; never fragments
// that were carried in different ways.
func TestKey(t *testing.T) {
	for _, version := range []int{4, 6} {
		for name, other := range map[string]func(*datagramSpec){
			"source":      func(s *datagramSpec) { s.src++ },
			"destination": func(s *datagramSpec) { s.dst++ },
			"ID":          func(s *datagramSpec) { s.id++ },
			"protocol":    func(s *datagramSpec) { s.next = 17 },
			"carried":     nil,
			"MACs":        func(s *datagramSpec) { s.link = bytes.Repeat([]byte{4}, 12) },
			"tag":         func(s *datagramSpec) { s.link = append(s.link, 0x81, 0, 0, 9) },
		} {
			b := newBench(t, Limits{})
			s, o, carried := plain(version, 100), plain(version, 100), uint64(0)
			if other == nil {
				carried = 1 << 63
			} else {
				other(o)
			}
			one := name == "MACs" || name == "tag" || name == "protocol" && version == 6
			b.step(s, step{0, 40, true, Held})
			whole, r := b.add(t, o.fragment(40, 100, false, 0), carried, b.now)
			if one != (r == Whole) || one && !bytes.Equal(whole, s.whole()) {
				t.Errorf("IPv%d, other %s: %v", version, name, r)
			}
		}
	}
	b, long := newBench(t, Limits{}), plain(6, 100)
	b.step(long, step{0, 40, true, Held})
	long.id |= 1 << 16 // 32 bits in IPv6
	b.step(long, step{40, 100, false, Held})
}

// Time is that of the first fragment that came, and not prolonged (RFC 8200 section
// 4.5; contract, The transport: the clock is the receive time it is given).
func TestAge(t *testing.T) {
	b := newBench(t, Limits{Age: 10 * time.Second})
	s := plain(4, 100)
	b.step(s, step{16, 24, true, Held})
	b.now += 9 * second
	b.step(s, step{8, 16, true, Held})
	b.now += second - 1
	b.step(s, step{0, 8, true, Held})
	b.now++
	b.step(s, step{24, 30, false, Held})
	if got := b.b.Stats(); got.Expired != 1 || got.Datagrams != 1 || got.Bytes != chunkMem {
		t.Errorf("%+v", got)
	}
	b.now -= 10 * second // time stands still
	b.step(s, step{16, 24, true, Held})
	b.now -= second // the clock was set anew
	b.step(s, step{0, 16, true, Held})
	if got := b.b.Stats(); got.Expired != 2 || got.Datagrams != 1 {
		t.Errorf("%+v", got)
	}
	b.now += 10*second - 1
	b.step(s, step{16, 24, false, Whole})
}

// What is put together is a packet, and no fragment again.
func TestBadHeader(t *testing.T) {
	nested := plain(6, 100)
	nested.next = 44
	copy(nested.data, []byte{50, 0, 0, 1, 0, 0, 0, 9})
	b := newBench(t, Limits{})
	b.step(nested, step{40, 100, false, Held}, step{0, 40, true, BadHeader}, step{8, 16, true, BadHeader})
	atomic := *nested
	b.step(&atomic, step{0, 100, false, BadHeader})
	if got := b.b.Stats(); got.Bytes != 0 {
		t.Errorf("what is lost still takes memory: %+v", got)
	}

	long := plain(6, 100)
	long.id++
	fits := chunkLen - 14 - 40
	long.head, long.numbers = [][]byte{make([]byte, fits/8*8)}, []byte{60}
	long.head[0][1] = byte(fits/8 - 1)
	b.step(long, step{0, 16, true, Held}, step{16, 100, false, Whole})
	long.head[0] = append(long.head[0], make([]byte, 8)...)
	long.head[0][1]++
	b.step(long, step{0, 16, true, BadHeader}, step{0, 16, false, Whole})
}

// Tiny fragments far apart, of datagrams without number, stay within the limits,
// and a datagram in their midst becomes whole (CVE-2018-5391, RFC 8900 section 3.7).
func TestFlood(t *testing.T) {
	for _, l := range []Limits{{}, {Bytes: MinBytes}, {Datagrams: 1}, {Datagrams: 3}} {
		b := New(l)
		flood, good := plain(6, 1<<16), plain(4, 3000)
		add := func(frame []byte, want Result) {
			t.Helper()
			p, err := wire.ParseIP(frame, 14, len(frame), frame[14]>>4)
			if err != nil {
				t.Fatal(err)
			}
			if _, r := b.Add(frame, p, 0, 1); r != want {
				t.Fatalf("%v, want %v", r, want)
			}
			if s := b.Stats(); s.Bytes > b.limits.Bytes || s.Datagrams > b.limits.Datagrams {
				t.Fatalf("%+v exceeds %+v", s, b.limits)
			}
		}
		for i := range uint32(5000) {
			flood.id = i
			at := int(i%32) * 1984
			add(flood.fragment(at, at+1984, true, 0), Held)
			if i%1000 == 999 {
				add(good.fragment(0, 1480, true, 0), Held)
				add(good.fragment(1480, 2960, true, 0), Held)
				add(good.fragment(2960, 3000, false, 0), Whole)
			}
		}
		if s := b.Stats(); s.Evicted == 0 || s.Results[Whole] != 5 {
			t.Errorf("%+v", s)
		}
	}
}

// The oldest datagram makes room, but not for itself.
func TestOldestMakesRoom(t *testing.T) {
	for _, older := range []bool{true, false} {
		b := newBench(t, Limits{Bytes: MinBytes})
		s, o := plain(4, 1<<16), plain(4, 1<<16)
		o.id++
		b.step(s, step{0, 8, true, Held})
		b.step(o, step{8, 16, true, Held}, step{1984, 1992, true, Held})
		b.step(s, step{8, 63488, true, Held})
		if got := b.b.Stats(); got.Evicted != 0 || got.Bytes != MinBytes {
			t.Fatalf("%+v", got)
		}
		want := Stats{Evicted: 1}
		if older {
			b.step(s, step{63488, 65000, false, Whole})
		} else {
			b.step(o, step{3968, 3976, true, Held})
			want.Datagrams, want.Bytes = 1, 3*chunkMem
		}
		got := b.b.Stats()
		got.Results = want.Results
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// Once its memory is there a Buffer allocates nothing.
func TestNoAllocations(t *testing.T) {
	b := New(Limits{})
	var frames [][]byte
	var packets []wire.Packet
	for _, version := range []int{4, 6} {
		s := plain(version, 65000)
		for at := 0; at < 65000; at += 1480 {
			frames = append(frames, s.fragment(at, min(at+1480, 65000), at+1480 < 65000, 0))
		}
	}
	for _, f := range frames {
		p, err := wire.ParseIP(f, 14, len(f), f[14]>>4)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, p)
	}
	id := uint16(0)
	if n := testing.AllocsPerRun(200, func() {
		b.Release()
		id++
		for i, f := range frames {
			at := 18
			if packets[i].Version == 6 {
				at = 60
			}
			binary.BigEndian.PutUint16(f[at:], id)
			b.Add(f, packets[i], 0, int64(id))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := b.Stats().Results[Whole]; n != 2*201 {
		t.Errorf("%d whole datagrams", n)
	}
}

// What the documentation says of sizes.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(chunk{}); n != chunkMem {
		t.Errorf("a chunk has %d bytes", n)
	}
	if n := unsafe.Sizeof(datagram{}); n > 512 {
		t.Errorf("a datagram has %d bytes", n)
	}
	if Tailroom < status.Tailroom || Tailroom < 300 {
		t.Errorf("Tailroom is %d", Tailroom)
	}
}

// String names a result for these tests. Who uses the package has reasons of its own.
func (r Result) String() string {
	return [...]string{"held", "whole", "duplicate", "overlap", "bad end", "bad length", "bad header", "too long", "ECN mismatch"}[r]
}

// A programmer's error panics with the package's name.
func TestPanics(t *testing.T) {
	whole := plain(4, 9).whole()
	p, _ := wire.ParseIP(whole, 14, len(whole), 4)
	for name, f := range map[string]func(){
		"no fragment":   func() { New(Limits{}).Add(whole, p, 0, 0) },
		"bytes":         func() { New(Limits{Bytes: MinBytes - 1}) },
		"datagrams":     func() { New(Limits{Datagrams: -1}) },
		"age":           func() { New(Limits{Age: -1}) },
		"no bytes ever": func() { New(Limits{Bytes: -1}) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "fragment: ") {
					t.Errorf("%s: %v", name, r)
				}
			}()
			f()
		}()
	}
}
