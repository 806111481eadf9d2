package outbound_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"tapsec/ah"
	"tapsec/internal/lab/forge"
	"tapsec/internal/ledger"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/wire"
)

// Ends of the packets that are sealed, and of the tunnels around them.
var (
	hosts    = map[int][2]string{4: {"10.1.0.1", "10.2.0.1"}, 6: {"2001:db8:1::1", "2001:db8:2::1"}}
	gateways = map[int][2]string{4: {"192.0.2.1", "192.0.2.2"}, 6: {"2001:db8::1", "2001:db8::2"}}
)

// newSA makes an SA with keys that depend on its SPI. ends is one of the pairs
// above or nil.
func newSA(spi uint32, p sa.Protocol, mode sa.Mode, suite string, ends [2]string) *sa.SA {
	su, err := sa.ParseSuite(p, suite)
	if err != nil {
		panic(err)
	}
	a := &sa.SA{
		Name: fmt.Sprintf("%s%d", p, spi), SPI: spi, Protocol: p, Mode: mode, Suite: su, PadCheck: true,
		EncryptionKey: sa.NewKey(keyBytes(spi, su.EncryptionKeyLen())),
		IntegrityKey:  sa.NewKey(keyBytes(^spi, su.IntegrityKeyLen())),
	}
	if ends[0] != "" {
		a.Src, a.Dst = netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
	}
	return a
}

func keyBytes(seed uint32, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		seed = seed*1664525 + 1013904223
		b[i] = byte(seed >> 24)
	}
	return b
}

// stack is a list of SAs for packets of one IP version inside the other.
type stack struct {
	name string
	sas  []*sa.SA // innermost first
}

func stacks(inner, outer int, espSuite, ahSuite string) []stack {
	transportESP := func() *sa.SA { return newSA(0x101, sa.ESP, sa.Transport, espSuite, hosts[inner]) }
	transportAH := func() *sa.SA { return newSA(0x102, sa.AH, sa.Transport, ahSuite, hosts[inner]) }
	tunnelESP := func() *sa.SA { return newSA(0x201, sa.ESP, sa.Tunnel, espSuite, gateways[outer]) }
	tunnelAH := func() *sa.SA { return newSA(0x202, sa.AH, sa.Tunnel, ahSuite, gateways[outer]) }
	encap := func(a *sa.SA) *sa.SA { a.Encap = true; return a }
	bundle := func(e, a *sa.SA) []*sa.SA { a.Bundle = e.Name; return []*sa.SA{e, a} }
	return []stack{
		{"clear", nil},
		{"transport ESP", []*sa.SA{transportESP()}},
		{"transport AH", []*sa.SA{transportAH()}},
		{"transport AH over ESP", []*sa.SA{transportESP(), transportAH()}},
		{"transport bundle", bundle(transportESP(), transportAH())},
		{"tunnel ESP", []*sa.SA{tunnelESP()}},
		{"tunnel AH", []*sa.SA{tunnelAH()}},
		{"tunnel bundle", bundle(tunnelESP(), tunnelAH())},
		{"tunnel ESP over transport ESP", []*sa.SA{transportESP(), tunnelESP()}},
		{"tunnel ESP over transport AH", []*sa.SA{transportAH(), tunnelESP()}},
		{"tunnel bundle over transport bundle", append(bundle(transportESP(), transportAH()), bundle(tunnelESP(), tunnelAH())...)},
		{"tunnel AH over tunnel ESP", []*sa.SA{tunnelESP(), tunnelAH()}},
		{"UDP transport", []*sa.SA{encap(transportESP())}},
		{"UDP tunnel", []*sa.SA{encap(tunnelESP())}},
		{"UDP tunnel over transport", []*sa.SA{transportESP(), encap(tunnelESP())}},
		{"tunnel over UDP transport", []*sa.SA{encap(transportESP()), tunnelESP()}},
	}
}

// udp is a packet between the hosts of an IP version.
func udp(version, payload int) []byte {
	from := netip.AddrPortFrom(netip.MustParseAddr(hosts[version][0]), 7)
	to := netip.AddrPortFrom(netip.MustParseAddr(hosts[version][1]), 4242)
	return forge.UDP(nil, from, to, keyBytes(99, payload))
}

// packets are what is sealed: with and without options or extension headers.
func packets(version int) map[string][]byte {
	plain := udp(version, 100)
	if version == 4 {
		routerAlert, timestamp := []byte{148, 4, 0, 0}, []byte{68, 8, 5, 0, 1, 2, 3, 4}
		return map[string][]byte{
			"plain":   plain,
			"options": forge.Options(nil, plain, append(routerAlert, timestamp...)),
		}
	}
	changing, fixed := []byte{0x3e, 2, 7, 7}, []byte{0x1e, 2, 8, 8}
	extended := forge.Extension(nil, plain, wire.ProtoHopByHop, append([]byte{0, 0, 1, 0}, changing...)) // PadN of 2
	extended = forge.Extension(nil, extended, wire.ProtoRouting, append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, keyBytes(5, 16)...))
	extended = forge.Extension(nil, extended, wire.ProtoDestOpts, append([]byte{0, 0, 1, 0}, fixed...))
	return map[string][]byte{"plain": plain, "extended": extended}
}

// each calls f with every stack and packet of every pairing of IP versions.
func each(t *testing.T, f func(t *testing.T, k stack, packet []byte)) {
	for _, inner := range []int{4, 6} {
		for _, outer := range []int{4, 6} {
			for _, k := range stacks(inner, outer, "aes128gcm16", "sha256") {
				for kind, packet := range packets(inner) {
					t.Run(fmt.Sprintf("%d in %d/%s/%s", inner, outer, k.name, kind), func(t *testing.T) { f(t, k, packet) })
				}
			}
		}
	}
}

func seal(t testing.TB, packet []byte, sas ...*sa.SA) []byte {
	t.Helper()
	s, err := outbound.NewSealer(nil, sas...)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealAndOpen(t *testing.T) {
	each(t, func(t *testing.T, k stack, packet []byte) {
		if got := open(t, seal(t, packet, k.sas...), 1, k.sas...); !bytes.Equal(got, packet) {
			t.Errorf("came out as\n%x, went in as\n%x", got, packet)
		}
	})
}

func TestSuites(t *testing.T) {
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			t.Run(su.Name, func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { roundTrip(t, p, su.Name) })
			})
		}
	}
}

func roundTrip(t *rapid.T, p sa.Protocol, suite string) {
	inner := rapid.SampledFrom([]int{4, 6}).Draw(t, "inner version")
	outer := rapid.SampledFrom([]int{4, 6}).Draw(t, "outer version")
	ends, mode := hosts[inner], rapid.SampledFrom([]sa.Mode{sa.Transport, sa.Tunnel}).Draw(t, "mode")
	if mode == sa.Tunnel {
		ends = gateways[outer]
	}
	a := newSA(rapid.Uint32Range(1, 1<<32-1).Draw(t, "SPI"), p, mode, suite, ends)
	a.ESN = rapid.Bool().Draw(t, "ESN")
	a.Encap = p == sa.ESP && rapid.Bool().Draw(t, "encap")
	number := uint64(rapid.Uint32().Draw(t, "number"))
	if a.ESN {
		number |= uint64(rapid.Uint32Max(1<<32-2).Draw(t, "high half")) << 32
	}
	packet := udp(inner, rapid.IntRange(0, 1500).Draw(t, "payload"))
	s, err := outbound.NewSealer(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	s.SetNumber(0, number)
	sealed, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	if got := open(t, sealed, number, a); !bytes.Equal(got, packet) {
		t.Fatalf("came out as %x", got)
	}
}

func TestSealAppends(t *testing.T) {
	k, packet := stacks(4, 6, "aes128gcm16", "sha256")[7], udp(4, 10)
	s, err := outbound.NewSealer(nil, k.sas...)
	if err != nil {
		t.Fatal(err)
	}
	in := append(bytes.Clone(packet), "Ethernet padding"...)
	sealed, err := s.Seal([]byte("frame"), in)
	if err != nil || string(sealed[:5]) != "frame" {
		t.Fatalf("%q, %v", sealed, err)
	}
	if got := open(t, sealed[5:], 1, k.sas...); !bytes.Equal(got, packet) {
		t.Errorf("came out as %x", got)
	}
	if !bytes.Equal(in[:len(packet)], packet) {
		t.Error("the packet sealed was written to")
	}
}

func TestSealerNumbers(t *testing.T) {
	a, packet := newSA(1, sa.ESP, sa.Transport, "aes128-sha256", [2]string{}), udp(4, 10)
	a.ESN, a.SeqHigh = true, 7
	for _, c := range []struct {
		oseq uint64
		want []uint64
	}{{0, []uint64{7<<32 + 1, 7<<32 + 2}}, {7<<32 + 0xfffffffe, []uint64{7<<32 + 0xffffffff, 8 << 32, 8<<32 + 1}}} {
		a.OSeq = c.oseq
		s, err := outbound.NewSealer(nil, a)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			sealed, err := s.Seal(nil, packet)
			if err != nil {
				t.Fatal(err)
			}
			open(t, sealed, want, a)
		}
	}
}

// A sender never lets the number of an SA begin again (RFC 4303 section 3.3.3).
func TestSealerNumbersEnd(t *testing.T) {
	a, packet := newSA(1, sa.AH, sa.Transport, "sha1", [2]string{}), udp(4, 10)
	s, err := outbound.NewSealer(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	s.SetNumber(0, 0xffffffff)
	if _, err := s.Seal(nil, packet); err != nil {
		t.Error(err)
	}
	if _, err := s.Seal(nil, packet); !errors.Is(err, ledger.ErrUsedUp) {
		t.Errorf("got %v, want %v", err, ledger.ErrUsedUp)
	}
}

func TestNewSealerRefuses(t *testing.T) {
	tunnel := func() *sa.SA { return newSA(1, sa.ESP, sa.Tunnel, "aes128gcm16", gateways[4]) }
	auth := func(bundle string, mode sa.Mode) *sa.SA {
		a := newSA(2, sa.AH, mode, "sha256", gateways[4])
		a.Bundle = bundle
		return a
	}
	noSource := tunnel()
	noSource.Src = netip.Addr{}
	shortKey := tunnel()
	shortKey.EncryptionKey = sa.NewKey(make([]byte, 19))
	auto := tunnel()
	auto.Mode = sa.Auto
	for _, c := range []struct {
		want string
		sas  []*sa.SA
	}{
		{"mode auto seals nothing; say mode: transport or tunnel", []*sa.SA{auto}},
		{"a tunnel needs src and dst for its outer header", []*sa.SA{noSource}},
		{"encryption_key: aes128gcm16 needs 20 bytes (its 4-byte salt last), found 19", []*sa.SA{shortKey}},
		{"expected the SA esp1 beneath it, in the same mode", []*sa.SA{auth("esp1", sa.Tunnel)}},
		{"expected the SA other beneath it, in the same mode", []*sa.SA{tunnel(), auth("other", sa.Tunnel)}},
		{"expected the SA esp1 beneath it, in the same mode", []*sa.SA{tunnel(), auth("esp1", sa.Transport)}},
	} {
		want := fmt.Sprintf("outbound: %s: %s", c.sas[len(c.sas)-1].Name, c.want)
		if _, err := outbound.NewSealer(nil, c.sas...); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	udp4, udp6 := udp(4, 10), udp(6, 10)
	fragment := bytes.Clone(udp4)
	fragment[6] = 0x20
	routed := forge.Extension(nil, udp6, wire.ProtoRouting, append([]byte{0, 2, 0, 1, 0, 0, 0, 0}, keyBytes(5, 16)...))
	transport := func(p sa.Protocol, suite string) *sa.SA { return newSA(1, p, sa.Transport, suite, hosts[4]) }
	anywhere := newSA(1, sa.AH, sa.Transport, "sha256", [2]string{})
	tunnel := newSA(1, sa.ESP, sa.Tunnel, "aes128gcm16", gateways[4])
	for _, c := range []struct {
		name   string
		a      *sa.SA
		packet []byte
		want   error
	}{
		{"nothing", tunnel, nil, outbound.ErrPacket},
		{"ARP", tunnel, make([]byte, 46), outbound.ErrPacket},
		{"IPv3", tunnel, append([]byte{0x30, 0, 0, 0, 0, 6, wire.ProtoUDP, 64}, make([]byte, 38)...), outbound.ErrPacket},
		{"a packet cut short", tunnel, udp4[:len(udp4)-1], outbound.ErrPacket},
		{"a fragment", transport(sa.ESP, "aes128gcm16"), fragment, outbound.ErrFragment},
		{"the other version", transport(sa.ESP, "aes128gcm16"), udp6, outbound.ErrFamily},
		{"segments left", anywhere, routed, outbound.ErrRouting},
		{"bad options", anywhere, forge.Options(nil, udp4, []byte{7, 9, 4, 0}), ah.ErrOptions},
		{"over 65535 bytes", tunnel, udp(4, 65500), outbound.ErrTooLong},
		{"over 65535 bytes in IPv6", newSA(1, sa.AH, sa.Transport, "sha256", hosts[6]), udp(6, 65520), outbound.ErrTooLong},
	} {
		s, err := outbound.NewSealer(nil, c.a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Seal(nil, c.packet); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if got := open(t, seal(t, fragment, tunnel), 1, tunnel); !bytes.Equal(got, fragment) {
		t.Error("a tunnel carries fragments as they are")
	}
}

// CBC is the one cipher whose IVs come from the source.
func TestNoRandomness(t *testing.T) {
	cbc := newSA(1, sa.ESP, sa.Transport, "aes128-sha256", [2]string{})
	if _, err := outbound.NewSealer(bytes.NewReader(nil), cbc); err == nil {
		t.Error("made without a random identification")
	}
	s, err := outbound.NewSealer(bytes.NewReader(make([]byte, 2)), cbc) // enough for that, and for no IV
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(nil, udp(4, 10)); err == nil {
		t.Error("sealed with an IV that nobody gave")
	}
}

func TestSealerNoAllocs(t *testing.T) {
	check := func(t *testing.T, packet []byte, sas ...*sa.SA) {
		s, err := outbound.NewSealer(nil, sas...)
		if err != nil {
			t.Fatal(err)
		}
		dst, err := s.Seal(nil, packet)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10, func() { dst, _ = s.Seal(dst[:0], packet) }); n != 0 {
			t.Errorf("%v allocations for a packet", n)
		}
	}
	each(t, func(t *testing.T, k stack, packet []byte) { check(t, packet, k.sas...) })
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			t.Run(su.Name, func(t *testing.T) {
				check(t, udp(4, 100), newSA(1, p, sa.Transport, su.Name, [2]string{}))
			})
		}
	}
}
