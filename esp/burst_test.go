package esp

import (
	"bytes"
	crand "crypto/rand"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"tapsec/sa"
	"tapsec/status"
)

// What is opened together has the result, and the bytes, that Open has alone: whatever suites stand beside
// each other, lengths, numbers, wrong ICVs and wrong pads.
func TestTogether(t *testing.T) {
	var suites []*sa.SA
	for _, su := range sa.Suites(sa.ESP) {
		for _, change := range []func(*sa.SA){withoutPads, withESN} {
			suites = append(suites, testSA(t, su.Name, change))
		}
	}
	alone, together := new(Scratch), new(Scratch)
	rapid.Check(t, func(t *rapid.T) {
		type packet struct {
			in          *Inbound
			bytes, copy []byte
			number      uint64
		}
		few := rapid.SliceOfN(rapid.SampledFrom(suites), 1, 3).Draw(t, "SAs")
		var packets []packet
		for range rapid.IntRange(1, Burst+3).Draw(t, "packets") {
			s := rapid.SampledFrom(few).Draw(t, "SA")
			p := packet{number: rapid.Uint64Range(1, 1<<40).Draw(t, "number")}
			p.bytes = sealAny(t, s, p.number)
			if spoil := rapid.IntRange(-len(p.bytes), len(p.bytes)-1).Draw(t, "spoilt"); spoil >= 0 {
				p.bytes[spoil]++
				p.number = p.number>>32<<32 | uint64(binary.BigEndian.Uint32(p.bytes[4:]))
			}
			p.copy = bytes.Clone(p.bytes)
			in, err := NewInbound(s, 1)
			if err != nil {
				t.Fatal(err)
			}
			p.in = in
			packets = append(packets, p)
		}
		for _, p := range packets {
			p.in.Enter(0, p.copy, p.number, together)
		}
		together.Together()
		for i, p := range packets {
			if rapid.IntRange(0, 9).Draw(t, "left out") == 0 {
				continue
			}
			want, why := p.in.Open(0, p.bytes, p.number, alone)
			got, reason := p.in.Open(0, p.copy, p.number, together)
			if got != want || reason != why || !bytes.Equal(p.bytes, p.copy) {
				t.Fatalf("packet %d, %s: %+v, %v, alone %+v, %v; the same bytes: %v", i, p.in.sa.Suite.Name, got, reason, want, why, bytes.Equal(p.bytes, p.copy))
			}
		}
		together.Apart()
	})
}

// sealAny seals a text that may end in any pad.
func sealAny(t *rapid.T, s *sa.SA, number uint64) []byte {
	out, err := NewOutbound(s, crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, s.Suite.Block*rapid.IntRange(1, rapid.SampledFrom([]int{2400, 2400, 12000}).Draw(t, "longest")/s.Suite.Block).Draw(t, "blocks"))
	copy(text[len(text)-2:], rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "pad"))
	sealed, err := out.SealPlain(nil, text, number)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// A result is for the packet and number that were entered, and is gone once they are apart.
func TestTogetherIsForThatPacket(t *testing.T) {
	s := testSA(t, "aes128-sha1", withESN)
	in, scratch := inbound(t, s), new(Scratch)
	var packets, again [][]byte
	for i := range Burst {
		out, err := NewOutbound(s, crand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p, err := out.Seal(nil, []byte("payload"), 4, uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		packets, again = append(packets, p), append(again, bytes.Clone(p))
		in.Enter(0, p, uint64(i)+1<<32, scratch) // not the number it was sealed with
	}
	scratch.Together()
	if _, reason := in.Open(0, packets[0], 1<<32, scratch); reason != status.ESPICV {
		t.Errorf("with the wrong high half: %v", reason)
	}
	for i, p := range packets {
		if _, reason := in.Open(0, p, uint64(i), scratch); reason != status.Verified {
			t.Errorf("packet %d with its own number: %v", i, reason)
		}
	}
	scratch = new(Scratch)
	for i, p := range again {
		in.Enter(0, p, uint64(i), scratch)
	}
	scratch.Together()
	scratch.Apart()
	again[0][HeaderLen]++
	if _, reason := in.Open(0, again[0], 0, scratch); reason != status.ESPICV {
		t.Errorf("apart: %v", reason)
	}
}
