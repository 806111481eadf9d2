package tshark

import (
	"crypto/sha512"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/keys"
	"tapsec/sa"
	"tapsec/test/interop"
)

// Hosts and gateways, by IP version.
var (
	hosts = map[int][2]netip.Addr{
		4: {netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")},
		6: {netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")},
	}
	gateways = map[int][2]netip.Addr{
		4: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
		6: {netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("2001:db8:b::1")},
	}
)

// layout is a mode in some pair of IP versions.
type layout struct {
	mode         sa.Mode
	inner, outer int
}

var layouts = []layout{
	{sa.Transport, 4, 4}, {sa.Transport, 6, 6},
	{sa.Tunnel, 4, 4}, {sa.Tunnel, 4, 6}, {sa.Tunnel, 6, 4}, {sa.Tunnel, 6, 6},
}

// ownFrames are tapsec's: every suite in every layout, in UDP too.
func ownFrames(t *testing.T, m *matrix) {
	var sas []*sa.SA
	var frames [][]byte
	var labels []string
	for _, suite := range sa.Suites(sa.ESP) {
		for _, l := range layouts {
			for _, encap := range []bool{false, true} {
				a := l.association(suite, uint32(0x1000+len(sas)), encap)
				for _, f := range l.frames(t, a) {
					frames, labels = append(frames, f), append(labels, group(suite))
				}
				sas = append(sas, a)
			}
		}
	}
	config := filepath.Join(t.TempDir(), "sas.yaml")
	f, err := os.Create(config)
	if err == nil {
		err = keys.WriteYAML(f, sas)
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	label := func(i int) (what, title string) { return labels[i], "" }
	verdicts := m.judge(t, config, write(t, frames), interop.TapsecSeals, label)
	label = func(i int) (what, title string) { return labels[i/len(places)], "" } // all of them were good
	m.judge(t, config, write(t, damaged(frames, verdicts)), interop.TapsecSeals, label)
}

// association makes an SA whose keys follow from its SPI.
func (l layout) association(suite sa.Suite, spi uint32, encap bool) *sa.SA {
	ends := hosts[l.outer]
	if l.mode == sa.Tunnel {
		ends = gateways[l.outer]
	}
	secret := sha512.Sum512([]byte{byte(spi >> 8), byte(spi)})
	return &sa.SA{
		Name: suite.Name + "-" + netip.AddrPortFrom(ends[1], uint16(spi)).String(), SPI: spi, Protocol: sa.ESP, Mode: l.mode, Suite: suite,
		Src: ends[0], Dst: ends[1], Encap: encap, PadCheck: true,
		EncryptionKey: sa.NewKey(secret[:suite.EncryptionKeyLen()]), IntegrityKey: sa.NewKey(secret[:suite.IntegrityKeyLen()]),
	}
}

// frames are a short one and a long one.
func (l layout) frames(t *testing.T, a *sa.SA) (all [][]byte) {
	t.Helper()
	s, err := outbound.NewSealer(rand.NewChaCha8([32]byte{byte(a.SPI >> 8), byte(a.SPI)}), a) // the same frames after each run
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{5, 1200} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i + int(a.SPI))
		}
		packet := forge.UDP(nil, netip.AddrPortFrom(hosts[l.inner][0], 40000), netip.AddrPortFrom(hosts[l.inner][1], 40001), payload)
		sealed, err := s.Seal(nil, packet)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, forge.AppendFrame(nil, sealed))
	}
	return all
}

// group names the suites of one cipher, whatever its key's length.
func group(s sa.Suite) string {
	cipher, integrity, separate := strings.Cut(s.Name, "-")
	cipher = strings.NewReplacer("aes128", "aes…", "aes192", "aes…", "aes256", "aes…").Replace(cipher)
	if separate && integrity != "" {
		cipher += "-…"
	}
	return "ESP " + cipher + ", both modes, IPv4 and IPv6 in either, and in UDP"
}
