package outbound

import (
	"fmt"
	"testing"

	"tapsec/sa"
	"tapsec/wire"
)

// workload is a batch of 64 frames of eight flows.
func workload(n int) (batch [][]byte) {
	for i := range 64 {
		batch = append(batch, sizedTo(fmt.Sprintf("10.0.0.%d", 2+i%8), n))
	}
	return batch
}

// Once warm, no frame costs an allocation: sealed, in clear, cut or told.
func TestNoAllocs(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		batch  [][]byte
	}{
		"clear":      {Config{}, workload(1000)},
		"tunnel":     {Config{SAs: []*sa.SA{site(4)}}, workload(1000)},
		"CBC":        {Config{SAs: []*sa.SA{siteCBC(6)}}, workload(1000)},
		"nested":     {Config{SAs: []*sa.SA{with(web(4), anywhere), site(4)}}, workload(1000)},
		"bundle":     {Config{SAs: []*sa.SA{siteCBC(4), with(siteAH(4), over("site-cbc"))}}, workload(1000)},
		"discarded":  {Config{Policy: []sa.Policy{{Action: sa.Discard}}}, workload(1000)},
		"fragmented": {Config{SAs: []*sa.SA{site(4)}}, workload(1500)},
		"in IPv6":    {Config{SAs: []*sa.SA{site(6)}}, workload(1500)},
		"told": {Config{SAs: []*sa.SA{site(4)}, Reply: func([]byte) error { return nil }},
			[][]byte{edited(sized(4, 1500), df), sized(6, 1500)}},
	} {
		s := newSender(t, c.config)
		s.Batch(c.batch)
		if n := testing.AllocsPerRun(10, func() { s.Batch(c.batch) }); n != 0 {
			t.Errorf("%s: %v allocations for a batch:%s", name, n, counts(s))
		}
	}
}

// Batches from anywhere: no panic, each frame has one reason, what is sent fits
// the wire unless it passes as it came, and nothing that a rule wants protected
// leaves in clear.
func FuzzBatch(f *testing.F) {
	for _, v := range []int{4, 6} {
		f.Add(udp(v, 100), uint8(0))
		f.Add(extended(sized(v, 1200), v), uint8(1))
		f.Add(fragmentOf(sized(4, 1500), 8), uint8(v))
	}
	f.Add(edited(sized(4, 1500), df), uint8(2))
	stacks := [][]*sa.SA{
		{site(4)}, {site(6)}, {with(web(4), anywhere)}, {with(webAH(6), anywhere), site(4)}, {siteAH(6)}, nil,
	}
	f.Fuzz(func(t *testing.T, frame []byte, kind uint8) {
		var a answered
		s := newSender(t, Config{SAs: stacks[int(kind)%len(stacks)], MTU: 1280, Reply: a.reply, Policy: []sa.Policy{{Action: sa.Protect}}})
		sent := s.Batch([][]byte{frame})
		c := s.Counts()
		fates := uint64(0)
		for r := range Pieces {
			fates += c[r]
		}
		if fates != 1 || c[Unprotected]+c[Bypassed] != 0 {
			t.Fatalf("counted%s", counts(s))
		}
		for _, out := range sent {
			if c[NotIP]+c[Link] != 0 {
				continue
			}
			_, l3, _ := wire.Ethernet(out)
			p, ok := wire.Addresses(out, l3)
			if !ok || p.Short || len(out)-l3 > 1280 || p.Proto != wire.ProtoESP && p.Proto != wire.ProtoAH && !p.Later {
				t.Fatalf("sent %x of %x", out, frame)
			}
		}
		if c[Replies] != 0 {
			told(t, a.frames[0], frame)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	for name, sas := range map[string][]*sa.SA{"clear": nil, "tunnel": {site(4)}, "nested": {with(web(4), anywhere), site(4)}} {
		for _, n := range []int{64, 576, 1400} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s, batch := newSender(b, Config{SAs: sas}), workload(n)
				b.SetBytes(int64(n * len(batch)))
				b.ReportAllocs()
				for b.Loop() {
					s.Batch(batch)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/frame")
			})
		}
	}
}
