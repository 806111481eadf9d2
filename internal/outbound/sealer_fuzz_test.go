package outbound_test

import (
	"bytes"
	"testing"

	"tapsec/internal/outbound"
	"tapsec/sa"
)

// Whatever is to be sealed, Seal refuses it or makes a packet that opens again;
// a tunnel gives back the very bytes.
func FuzzSeal(f *testing.F) {
	for _, version := range []int{4, 6} {
		for _, packet := range packets(version) {
			f.Add(packet)
		}
	}
	anywhere := func(p sa.Protocol, suite string) *sa.SA { return newSA(1, p, sa.Transport, suite, [2]string{}) }
	encap := newSA(2, sa.ESP, sa.Tunnel, "aes128gcm8", gateways[6])
	encap.Encap = true
	transport := []*sa.SA{anywhere(sa.ESP, "null-sha1"), anywhere(sa.AH, "sha384")}
	tunnel := []*sa.SA{encap}
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, sas := range [][]*sa.SA{transport, tunnel} {
			s, err := outbound.NewSealer(nil, sas...)
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := s.Seal(nil, packet)
			if err != nil {
				continue
			}
			got := open(t, sealed, 1, sas...)
			if p := headers(t, packet); len(got) != p.End || sas[0].Mode == sa.Tunnel && !bytes.Equal(got, packet[:p.End]) {
				t.Errorf("%x came out as %x", packet, got)
			}
		}
	})
}
