package pipeline_test

import (
	"fmt"
	"net/netip"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// BenchmarkProcess measures the whole receive path on one core, by the length
// of the clear packet.
func BenchmarkProcess(b *testing.B) {
	for _, s := range []stack{
		{"clear", nil},
		{"aes128gcm16", []*sa.SA{espSA(sa.Transport)}},
		{"aes256gcm16", []*sa.SA{espSA(sa.Transport, testkit.Suite("aes256gcm16"))}},
		{"chacha20poly1305", []*sa.SA{espSA(sa.Transport, testkit.Suite("chacha20poly1305"))}},
		{"aes128-sha256", []*sa.SA{espSA(sa.Transport, testkit.Suite("aes128-sha256"))}},
		{"AH sha256", []*sa.SA{ahSA(sa.Transport)}},
		{"nested", []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel)}},
	} {
		for _, n := range []int{64, 576, 1400, 9000} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) { benchmark(b, s.sas, n) })
		}
	}
}

func benchmark(b *testing.B, sas []*sa.SA, n int) {
	packet := forge.UDP(nil, netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 2), make([]byte, n-28))
	c := frameCase{sas: sas, packet: packet}
	frame := c.seal(b).frame
	p := pipeline.New(c.nic(b), pipeline.Options{})
	buffer := make([]byte, len(frame)+status.Tailroom)
	var out []byte
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		copy(buffer, frame)
		out = p.Process(buffer[:len(frame)])
	}
	if _, trailer, err := status.Split(out); err != nil || trailer.Word.Code() != status.Success {
		b.Fatal(err, trailer.Word)
	}
}

// BenchmarkBatch measures a frame as one of a batch, whose packets some builds open together.
func BenchmarkBatch(b *testing.B) {
	for _, suite := range []string{"aes128gcm16", "aes128-sha1", "aes128-sha256", "aes256-sha512"} {
		one := espSA(sa.Transport, testkit.Suite(suite))
		for _, s := range []stack{
			{suite, []*sa.SA{one}}, {suite + "-nested", []*sa.SA{one, espSA(sa.Tunnel, testkit.Suite(suite))}},
		} {
			for _, n := range []int{64, 1400} {
				b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) { benchmarkBatch(b, s.sas, n) })
			}
		}
	}
}

func benchmarkBatch(b *testing.B, sas []*sa.SA, n int) {
	packet := forge.UDP(nil, netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 2), make([]byte, n-28))
	c := frameCase{sas: sas, packet: packet}
	frame := c.seal(b).frame
	p := pipeline.New(c.nic(b), pipeline.Options{})
	var buffers, frames [64][]byte
	for i := range buffers {
		buffers[i] = make([]byte, len(frame), len(frame)+status.Tailroom)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, f := range buffers {
			copy(f, frame)
			frames[i] = f
		}
		p.Batch(frames[:])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/frame")
	for _, f := range frames {
		if _, trailer, err := status.Split(f); err != nil || trailer.Word.Code() != status.Success || !trailer.Word.Done() {
			b.Fatal(err, trailer.Word)
		}
	}
}
