package segment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// separate merges all frames that go together, and cuts each merged one again. It returns how many
// frames went at once, too.
func separate(t rapid.TB, frames [][]byte) (again [][]byte, counts []int) {
	t.Helper()
	return separateBy(t, &Merger{}, &Cutter{}, frames)
}

func separateBy(t rapid.TB, m *Merger, c *Cutter, frames [][]byte) (again [][]byte, counts []int) {
	t.Helper()
	for len(frames) > 0 {
		n := m.Merge(frames)
		counts = append(counts, n)
		if n == 1 {
			again = append(again, frames[0])
		} else {
			merged := m.AppendHeaders(nil)
			if len(merged) > MaxHeaders {
				t.Fatalf("%d bytes of headers", len(merged))
			}
			for _, f := range frames[:n] {
				merged = append(merged, m.Payload(f)...)
			}
			if !c.Begin(Parse(merged), merged[HeaderLen:]) {
				t.Fatalf("cannot be cut: %x", merged[:min(len(merged), 200)])
			}
			for c.Len() > 0 {
				again = append(again, c.Append(nil))
			}
		}
		frames = frames[n:]
	}
	return again, counts
}

func cloneAll(frames [][]byte) (all [][]byte) {
	for _, f := range frames {
		all = append(all, bytes.Clone(f))
	}
	return all
}

// flow makes a flow's frames, each by gopacket.
func (s *shape) flow(t rapid.TB, stream []byte) (frames [][]byte) {
	for i := 0; i*s.size < len(stream); i++ {
		end := min(len(stream), (i+1)*s.size)
		frames = append(frames, s.build(t, stream[i*s.size:end], i, end == len(stream)))
	}
	return frames
}

// A flow whose frames are alike goes as one, as long as a packet may be, and what is cut from it are
// the very same frames.
func TestMergeFlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		s.extended, s.tunnel, s.unsummed, s.cwr = false, "", false, false
		count := rapid.IntRange(2, min(64, 60000/s.size)).Draw(t, "frames")
		frames := s.flow(t, make([]byte, (count-1)*s.size+rapid.IntRange(1, s.size).Draw(t, "last")))
		before := cloneAll(frames)
		again, counts := separate(t, frames)
		if !slices.Equal(counts, []int{count}) {
			t.Fatalf("went as %v, want %d at once: %+v", counts, count, s)
		}
		if !slices.EqualFunc(again, before, bytes.Equal) || !slices.EqualFunc(frames, before, bytes.Equal) {
			t.Fatalf("other frames: %+v", s)
		}
	})
}

// Whatever neighbours are, and whatever of them was changed, cutting what was merged gives the very
// same frames.
func TestMergeThenCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var frames [][]byte
		for range rapid.IntRange(1, 3).Draw(t, "flows") {
			s := drawShape(t)
			s.size = rapid.IntRange(1, 40).Draw(t, "small")
			frames = append(frames, s.flow(t, make([]byte, rapid.IntRange(1, 400).Draw(t, "bytes")))...)
		}
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			f := frames[rapid.IntRange(0, len(frames)-1).Draw(t, "which")]
			f[rapid.IntRange(0, len(f)-1).Draw(t, "where")] ^= byte(rapid.IntRange(1, 255).Draw(t, "how"))
		}
		again, _ := separate(t, cloneAll(frames))
		if !slices.EqualFunc(again, frames, bytes.Equal) {
			t.Fatal("other frames")
		}
	})
}

// What must stay alone does, though its checksums are right: each change of one field parts a flow of
// four in front of the third frame, behind it, or both.
func TestMergeParts(t *testing.T) {
	tcp, udp := &shape{tcp: true, size: 100, ofTCP: make([]byte, 12)}, &shape{size: 100}
	tcp6, udp6 := &shape{tcp: true, v6: true, size: 100}, &shape{v6: true, size: 100}
	const v4, v6, inTCP, inTCP6, inUDP = 14, 14, 34, 54, 34
	for _, c := range []struct {
		what   string
		of     *shape
		at     int
		xor    byte
		counts []int
	}{
		{"destination MAC", tcp, 0, 4, []int{2, 1, 1}},
		{"source MAC", tcp, 11, 4, []int{2, 1, 1}},
		{"TOS: a CE mark", tcp, v4 + 1, 2, []int{2, 1, 1}},
		{"identification", tcp, v4 + 5, 8, []int{2, 1, 1}},
		{"DF", tcp, v4 + 6, 0x40, []int{2, 1, 1}},
		{"the reserved flag", tcp, v4 + 6, 0x80, []int{2, 1, 1}},
		{"MF", tcp, v4 + 6, 0x20, []int{2, 1, 1}},
		{"offset", tcp, v4 + 7, 1, []int{2, 1, 1}},
		{"TTL", tcp, v4 + 8, 1, []int{2, 1, 1}},
		{"source", tcp, v4 + 15, 1, []int{2, 1, 1}},
		{"destination", tcp, v4 + 19, 1, []int{2, 1, 1}},
		{"traffic class", tcp6, v6, 1, []int{2, 1, 1}},
		{"flow label", tcp6, v6 + 3, 1, []int{2, 1, 1}},
		{"hop limit", tcp6, v6 + 7, 1, []int{2, 1, 1}},
		{"IPv6 source", tcp6, v6 + 23, 1, []int{2, 1, 1}},
		{"IPv6 destination", tcp6, v6 + 39, 1, []int{2, 1, 1}},
		{"source port", tcp, inTCP + 1, 1, []int{2, 1, 1}},
		{"destination port", tcp, inTCP + 3, 1, []int{2, 1, 1}},
		{"sequence number", tcp, inTCP + 7, 1, []int{2, 1, 1}},
		{"acknowledgment", tcp, inTCP + 11, 1, []int{2, 1, 1}},
		{"AE", tcp, inTCP + 12, 1, []int{2, 1, 1}},
		{"FIN", tcp, inTCP + 13, 1, []int{3, 1}},
		{"SYN", tcp, inTCP + 13, 2, []int{2, 1, 1}},
		{"RST", tcp, inTCP + 13, 4, []int{2, 1, 1}},
		{"PSH", tcp6, inTCP6 + 13, 8, []int{3, 1}},
		{"no ACK", tcp, inTCP + 13, 0x10, []int{2, 1, 1}},
		{"URG", tcp, inTCP + 13, 0x20, []int{2, 1, 1}},
		{"ECE", tcp, inTCP + 13, 0x40, []int{2, 1, 1}},
		{"CWR", tcp, inTCP + 13, 0x80, []int{2, 1, 1}},
		{"window", tcp, inTCP + 15, 1, []int{2, 1, 1}},
		{"urgent pointer", tcp, inTCP + 19, 1, []int{2, 1, 1}},
		{"option", tcp, inTCP + 31, 1, []int{2, 1, 1}},
		{"UDP source port", udp, inUDP + 1, 1, []int{2, 1, 1}},
		{"UDP destination port", udp, inUDP + 3, 1, []int{2, 1, 1}},
		{"UDP length", udp, inUDP + 5, 1, []int{2, 1, 1}},
		{"next header", udp6, v6 + 6, 1, []int{2, 1, 1}},
	} {
		frames := c.of.flow(t, make([]byte, 400))
		frames[2][c.at] ^= c.xor
		resum(frames[2], c.of)
		again, counts := separate(t, cloneAll(frames))
		if !slices.Equal(counts, c.counts) {
			t.Errorf("%s: went as %v, want %v", c.what, counts, c.counts)
		}
		if !slices.EqualFunc(again, frames, bytes.Equal) {
			t.Errorf("%s: other frames", c.what)
		}
	}
}

// resum makes a frame's checksums right again.
func resum(frame []byte, s *shape) {
	h := header{at: 14, v4: !s.v6}
	upper, proto, place := 54, uint8(17), 6
	if s.tcp {
		proto, place = 6, 16
	}
	if h.v4 {
		upper = 34
		h.id = binary.BigEndian.Uint16(frame[18:])
		h.write(frame, len(frame)-14, 0)
	}
	seal(frame[upper:], place, h.pseudo(frame, proto))
}

// What has a checksum that is wrong, is left out, or was written in the other of two ways that are
// right stays alone, for a receiver would not see it as it was.
func TestMergeWantsChecksums(t *testing.T) {
	for _, s := range []*shape{{tcp: true, size: 100}, {tcp: true, v6: true, size: 100}, {size: 100}, {v6: true, size: 100}} {
		for at := 14; at < 142; at++ {
			frames := s.flow(t, make([]byte, 400))
			frames[2][at] ^= 0x10
			if again, counts := separate(t, cloneAll(frames)); !slices.Equal(counts, []int{2, 1, 1}) || !slices.EqualFunc(again, frames, bytes.Equal) {
				t.Fatalf("%+v, byte %d: went as %v", s, at, counts)
			}
		}
	}
	unsummed := &shape{size: 100, unsummed: true}
	if _, counts := separate(t, unsummed.flow(t, make([]byte, 300))); !slices.Equal(counts, []int{1, 1, 1}) {
		t.Errorf("without checksum: went as %v", counts)
	}
}

// Segments without payload, options in IPv4 and extension headers in IPv6, tunnels, bytes behind the
// packet: all alone.
func TestMergeLeavesAlone(t *testing.T) {
	for _, s := range []*shape{{tcp: true, size: 100, extended: true}, {tcp: true, v6: true, size: 100, extended: true},
		{tcp: true, size: 100, tunnel: "vxlan"}, {tcp: true, size: 100, tunnel: "gre"}, {tcp: true, size: 100, tunnel: "ip"}} {
		frames := s.flow(t, make([]byte, 300))
		if _, counts := separate(t, frames); s.tunnel != "vxlan" && !slices.Equal(counts, []int{1, 1, 1}) {
			t.Errorf("%+v: went as %v", s, counts)
		}
	}
	s := &shape{tcp: true, size: 100}
	frames := s.flow(t, make([]byte, 300))
	for i := range frames {
		frames[i] = append(frames[i], 0)
	}
	if _, counts := separate(t, frames); !slices.Equal(counts, []int{1, 1, 1}) {
		t.Errorf("with bytes behind: went as %v", counts)
	}
	empty := s.build(t, nil, 0, false)
	if _, counts := separate(t, [][]byte{empty, empty}); !slices.Equal(counts, []int{1, 1}) {
		t.Errorf("without payload: went as %v", counts)
	}
}

// A merged packet ends at 65535 bytes, and the rest begins another.
func TestMergeAsLongAsAPacket(t *testing.T) {
	s := &shape{tcp: true, size: 1400}
	frames := s.flow(t, make([]byte, 1400*64))
	again, counts := separate(t, cloneAll(frames))
	if !slices.Equal(counts, []int{46, 18}) || !slices.EqualFunc(again, frames, bytes.Equal) {
		t.Errorf("went as %v", counts)
	}
}

// BenchmarkMerge merges 45 segments, and says what one takes.
func BenchmarkMerge(b *testing.B) {
	const pieces = 45
	s := &shape{tcp: true, size: 1400, ofTCP: make([]byte, 12)}
	frames := s.flow(b, make([]byte, pieces*s.size))
	var m Merger
	head := make([]byte, 0, MaxHeaders)
	for b.Loop() {
		if m.Merge(frames) != pieces {
			b.Fatal("not merged")
		}
		m.AppendHeaders(head)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*pieces), "ns/piece")
}

// From whatever frames, what is merged and cut again are the very same frames.
func FuzzMerge(f *testing.F) {
	for _, s := range []*shape{{tcp: true, size: 100}, {v6: true, size: 100}, {tcp: true, v6: true, ofTCP: make([]byte, 12), size: 100}, {size: 100}} {
		frames := s.flow(f, make([]byte, 250))
		f.Add(frames[0], frames[1], frames[2])
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		frames := [][]byte{a, b, c}
		if again, _ := separate(t, cloneAll(frames)); !slices.EqualFunc(again, frames, bytes.Equal) {
			t.Fatal("other frames")
		}
	})
}

// ESP in UDP goes as one, SPI by SPI, with a checksum or, in IPv4, without. What was alone stays as it was, and
// what is cut has a checksum, unless the Cutter is to leave it out in IPv4. IKE, keepalives and TCP stay alone.
func TestMergeSealed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		s.tcp, s.extended, s.tunnel = false, false, ""
		s.unsummed = !s.v6 && s.unsummed
		spis := rapid.SliceOfN(rapid.SampledFrom([]string{"\x00\x00\x00\x00", "\x00\x00\x10\x01", "\x00\x00\x10\x02", "\x00\x01\x10\x01", ""}), 1, 40).Draw(t, "SPIs")
		cut := *s // what becomes of a packet in between
		cutter := Cutter{Sealed: rapid.Bool().Draw(t, "as sent")}
		cut.unsummed = cutter.Sealed && !s.v6
		var frames, cuts [][]byte
		var runs []int
		for i, spi := range spis {
			payload := append([]byte(spi), bytes.Repeat([]byte{0xff}, max(1, s.size%400))...)
			if spi == "" {
				payload = payload[:1] // a keepalive
			}
			frames = append(frames, s.build(t, payload, i, false))
			cuts = append(cuts, cut.build(t, payload, i, false))
			if alone := spi == "" || spi == spis0; i > 0 && !alone && spi == spis[i-1] {
				runs[len(runs)-1]++
			} else {
				runs = append(runs, 1)
			}
		}
		again, counts := separateBy(t, &Merger{Sealed: true}, &cutter, cloneAll(frames))
		if !slices.Equal(counts, runs) {
			t.Fatalf("went as %v, want %v: %q", counts, runs, spis)
		}
		want := cloneAll(frames)
		for at, i := 0, 0; i < len(runs); at, i = at+runs[i], i+1 {
			if runs[i] > 1 {
				copy(want[at:], cuts[at:at+runs[i]])
			}
		}
		if !slices.EqualFunc(again, want, bytes.Equal) {
			t.Fatalf("other frames: %+v", s)
		}
	})
	tcp := (&shape{tcp: true, size: 100}).flow(t, make([]byte, 400))
	if _, counts := separateBy(t, &Merger{Sealed: true}, &Cutter{Sealed: true}, tcp); len(counts) != len(tcp) {
		t.Errorf("TCP went as %v", counts)
	}
}

const spis0 = "\x00\x00\x00\x00" // where an SPI would be, IKE has this
