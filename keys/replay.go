package keys

import (
	"fmt"
	"strconv"
	"strings"

	"tapsec/sa"
)

// numbers reads a state's present numbers: `anti-replay context: seq 0x7, oseq 0x0, bitmap
// 0x0000007f`, or with ESN or a large window `anti-replay esn context:` and `seq-hi 0x0, seq
// 0x7, oseq-hi 0x0, oseq 0x0`.
func (s *state) numbers(words []string) {
	s.numbered = true
	s.Seq = max(s.Seq, number(words, "seq-hi")<<32|number(words, "seq"))
	s.OSeq = max(s.OSeq, number(words, "oseq-hi")<<32|number(words, "oseq"))
	if bitmap := after(words, "bitmap"); bitmap != "" {
		s.bitmap = []uint32{uint32(number(words, "bitmap"))}
	}
	if i := after(words, "bitmap-length"); i != "" {
		s.wanted, _ = strconv.Atoi(i)
	}
}

// bits reads words of a bitmap, which ip prints highest first, some to a line.
func (s *state) bits(words []string) {
	for _, word := range words {
		n, err := strconv.ParseUint(word, 16, 32)
		if s.wanted--; err != nil || s.wanted < 0 {
			s.wanted, s.bitmap, s.printed = 0, nil, nil
			return
		}
		s.printed = append(s.printed, uint32(n))
	}
}

// received is Linux's bitmap in the form of sa.SA. The single word of a small window without
// ESN has it already. A longer one is a ring as long as the window: number n has bit (n-1)
// modulo the window. A bitmap that lacks the highest number was set by hand and tells nothing.
func (s *state) received() sa.Bitmap {
	size := uint64(len(s.bitmap)) * 32
	if s.ring {
		size = min(size, s.window)
	}
	has := func(i uint64) bool { return s.bitmap[0]>>i&1 != 0 }
	if s.ring {
		has = func(i uint64) bool {
			at := (uint64(uint32(s.Seq)-1)%size + size - i) % size
			return s.bitmap[at/32]>>(at%32)&1 != 0
		}
	}
	if size == 0 || s.Seq == 0 || !has(0) {
		return nil
	}
	read := make(sa.Bitmap, (size+63)/64)
	for i := range min(size, s.Seq, uint64(s.Window)) {
		if has(i) {
			read[i/64] |= 1 << (i % 64)
		}
	}
	return read
}

// xfrmNumbers are the words that give a state an SA's present numbers. A high half alone is for
// whichever direction the SA serves.
func xfrmNumbers(s *sa.SA) string {
	var b strings.Builder
	for _, n := range []struct {
		word  string
		value uint64
		wrong sa.Direction
	}{{"replay-seq", s.Seq, sa.Outbound}, {"replay-oseq", s.OSeq, sa.Inbound}} {
		if n.value == 0 && s.Direction != n.wrong && s.Seq == 0 && s.OSeq == 0 {
			n.value = uint64(s.SeqHigh) << 32
		}
		if high := n.value >> 32; high > 0 {
			fmt.Fprintf(&b, " %s-hi 0x%x", n.word, high)
		}
		if low := uint32(n.value); low > 0 {
			fmt.Fprintf(&b, " %s 0x%x", n.word, low)
		}
	}
	return b.String()
}
