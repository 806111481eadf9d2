package appliance

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/test/testkit"
	"tapsec/transport"
)

// One batch holds packets of all kinds: good, with a wrong ICV inside or outside, replayed. Each
// has its own verdict, and what is good is delivered in order, by suites whose packets some builds open together
// (-tags ipsecmb) as by the others.
func TestMixedBatch(t *testing.T) {
	rig.Require(t)
	for _, suite := range []string{"aes128gcm16", "aes128-sha1", "aes128-sha256", "aes256-sha512"} {
		t.Run(suite, func(t *testing.T) {
			inner := between(4, sa.Transport, sa.ESP, suite, func(a *sa.SA) { a.Name, a.SPI, a.ESN = "inner-"+a.Name, a.SPI+0x100, true })
			tunnel := between(4, sa.Tunnel, sa.ESP, suite, func(*sa.SA) {})
			testkit.NewStack(t, "router")
			a := newSite(t, 0, func(out bool) []*sa.SA { return append(inner(out), tunnel(out)...) })
			s, err := outbound.NewSealer(nil, append(inner(false), tunnel(false)...)...)
			if err != nil {
				t.Fatal(err)
			}
			var batch, want [][]byte
			put := func(packet []byte) { batch = append(batch, forge.AppendFrame(make([]byte, 0, 4096), packet)) }
			counts := map[string]uint64{}
			from, to := netip.AddrPortFrom(pairs[1].prefix(4, 2).Addr(), 7), netip.AddrPortFrom(pairs[0].prefix(4, 2).Addr(), 7)
			for i := range 100 {
				packet := forge.UDP(nil, from, to, fmt.Appendf(make([]byte, 13*i), "%d", i))
				sealed, err := s.Seal(nil, packet)
				if err != nil {
					t.Fatal(err)
				}
				switch i % 10 {
				case 3: // the tunnel's ICV
					sealed[len(sealed)-1] ^= 1
					counts[transport.ICV.String()]++
				case 5: // the tunnel's payload, which the ICV covers
					sealed[len(sealed)/2] ^= 1
					counts[transport.ICV.String()]++
				case 7:
					put(bytes.Clone(sealed))
					want = append(want, packet)
					counts[transport.Replay.String()]++
				default:
					want = append(want, packet)
				}
				put(sealed)
			}
			got := batch
			for _, stage := range a.inward(0) {
				got = stage.Batch(got)
			}
			if !slices.EqualFunc(got, want, func(frame, packet []byte) bool { return bytes.Equal(frame[14:], packet) }) {
				t.Errorf("%d frames delivered, expected %d, each once and in order", len(got), len(want))
			}
			for reason, n := range counts {
				if is := a.host.consumer.Summary().Reasons[reason]; is != n {
					t.Errorf("%d frames dropped for %s, expected %d", is, reason, n)
				}
			}
		})
	}
}
