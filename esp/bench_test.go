package esp

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"tapsec/status"
)

// BenchmarkOpen measures one packet of each kind of suite, by the bytes of its
// payload: verified, decrypted and put in its place, on one core.
func BenchmarkOpen(b *testing.B) {
	for _, suite := range []string{
		"aes128gcm16", "aes256gcm16", "aes128gcm8", "aes128gmac", "aes128ccm16", "chacha20poly1305",
		"aes128-sha256", "aes256-sha512", "aes128-sha1", "aes128ctr-sha256", "aes128-aesxcbc", "aes128-aescmac",
		"null-sha256", "3des-sha1",
	} {
		for _, n := range []int{64, 576, 1400, 9000} {
			b.Run(fmt.Sprintf("%s/%d", suite, n), func(b *testing.B) { benchmarkOpen(b, suite, n) })
		}
	}
}

// sealedOnce is a packet with a payload of n bytes and the number 1, and the SA that opens it.
func sealedOnce(b *testing.B, suite string, n int) (*Inbound, []byte) {
	b.Helper()
	s := testSA(b, suite)
	out, err := NewOutbound(s, rand.NewChaCha8([32]byte{}))
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := out.Seal(nil, make([]byte, n), 4, 1)
	if err != nil {
		b.Fatal(err)
	}
	return inbound(b, s), sealed
}

func benchmarkOpen(b *testing.B, suite string, n int) {
	in, sealed := sealedOnce(b, suite, n)
	packet, scratch := make([]byte, len(sealed)), new(Scratch)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		copy(packet, sealed)
		if _, reason := in.Open(0, packet, 1, scratch); reason != status.Verified {
			b.Fatal(reason)
		}
	}
}

// BenchmarkTogether measures a packet of each suite that some build opens together, as part of a
// Burst of them.
func BenchmarkTogether(b *testing.B) {
	for _, suite := range []string{"aes128-sha1", "aes128-sha256", "aes256-sha512", "aes128ctr-sha256", "null-sha256"} {
		for _, n := range []int{64, 576, 1400} {
			b.Run(fmt.Sprintf("%s/%d", suite, n), func(b *testing.B) { benchmarkTogether(b, suite, n) })
		}
	}
}

func benchmarkTogether(b *testing.B, suite string, n int) {
	in, sealed := sealedOnce(b, suite, n)
	packets, scratch := [Burst][]byte{}, new(Scratch)
	for i := range packets {
		packets[i] = make([]byte, len(sealed))
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range packets {
			copy(p, sealed)
			in.Enter(0, p, 1, scratch)
		}
		scratch.Together()
		for _, p := range packets {
			if _, reason := in.Open(0, p, 1, scratch); reason != status.Verified {
				b.Fatal(reason)
			}
		}
		scratch.Apart()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*Burst), "ns/packet")
}
