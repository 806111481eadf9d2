package pipeline_test

import (
	"fmt"
	"net/netip"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/testkit"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
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
