package ah

import (
	"fmt"
	"testing"

	"tapsec/status"
)

// BenchmarkVerify measures one packet of each kind of suite, by the bytes
// behind its AH, on one core.
func BenchmarkVerify(b *testing.B) {
	for _, suite := range []string{"sha256", "sha512", "sha1", "aesxcbc", "aescmac", "aes128gmac"} {
		for _, n := range []int{64, 576, 1400, 9000} {
			b.Run(fmt.Sprintf("%s/%d", suite, n), func(b *testing.B) { benchmarkVerify(b, suite, n) })
		}
	}
}

func benchmarkVerify(b *testing.B, suite string, n int) {
	s := testSA(b, suite, false)
	packet, p := signed(b, s, ipv4(), make([]byte, n), 1)
	in, err := NewInbound(s, 1)
	if err != nil {
		b.Fatal(err)
	}
	scratch := new(Scratch)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if reason := in.Verify(0, packet, p, 1, scratch); reason != status.Verified {
			b.Fatal(reason)
		}
	}
}
