package sa

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const udpFlags = UDPTransport | UDPTunnel | TransportOverUDPTunnel | UDPTransportOverTunnel

// Contract, Capability profiles: every flag of every profile.
func TestProfiles(t *testing.T) {
	v1 := []string{"3des", "des", "md5", "null", "sha1"}
	v2 := []string{"aes128", "aes128gcm16", "aes128gmac", "aes192", "aes192gcm16", "aes192gmac",
		"aes256", "aes256gcm16", "aes256gmac", "sha256"}
	all := IPv4 | IPv6 | IPv4Options | IPv6ExtensionHeaders | CapAH | CapESP | AHESPCombined |
		CapTransport | CapTunnel | TransportTunnelCombined | CapESN | udpFlags
	for _, want := range []Profile{
		{Name: "full", Flags: all},
		{Name: "ndis-v1", Algorithms: v1, Legacy: true,
			Flags: IPv4 | IPv4Options | CapAH | CapESP | AHESPCombined | CapTransport | CapTunnel | TransportTunnelCombined | udpFlags},
		{Name: "ndis-v2", Flags: all, Algorithms: slices.Sorted(slices.Values(append(v1, v2...)))},
		{Name: "ixgbe-82599", Flags: IPv4 | IPv6 | CapAH | CapESP | CapTransport, Algorithms: []string{"aes128gcm16", "aes128gmac"}, Capacity: 1024},
		{Name: "mlx5-crypto", Flags: IPv4 | IPv6 | CapESP | CapTransport | CapTunnel | CapESN, Algorithms: []string{"aes128gcm16", "aes256gcm16"}},
	} {
		got, err := ProfileByName(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got.Flags != want.Flags || got.Capacity != want.Capacity || got.Legacy != want.Legacy {
			t.Errorf("%s: %+v, expected flags %s", want.Name, got, want.Flags)
		}
		if !slices.Equal(slices.Sorted(slices.Values(got.Algorithms)), want.Algorithms) {
			t.Errorf("%s: algorithms %v, expected %v", want.Name, got.Algorithms, want.Algorithms)
		}
		if got.Has(all) != (want.Flags == all) || !got.Has(IPv4) {
			t.Errorf("%s: Has", want.Name)
		}
	}
	if p, err := ProfileByName(""); err != nil || p.Name != "full" {
		t.Errorf("the default is %q, %v", p.Name, err)
	}
	if _, err := ProfileByName("ndis"); err == nil || !strings.Contains(err.Error(), "ndis-v1") {
		t.Errorf("an unknown profile: %v", err)
	}
}

// Every algorithm that a profile names is one that a suite can have.
func TestProfileAlgorithmsExist(t *testing.T) {
	for _, p := range Profiles {
		for _, a := range p.Algorithms {
			if _, cipher := ciphers[a]; !cipher {
				if _, auth := integrities[a]; !auth {
					t.Errorf("%s: no algorithm %s", p.Name, a)
				}
			}
		}
	}
}

func mustSuite(t *testing.T, p Protocol, name string) Suite {
	t.Helper()
	s, err := ParseSuite(p, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A refused SA says which flag or algorithm is missing (contract, Capability
// profiles).
func TestProfileSupports(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	gcm := func() *SA {
		return &SA{Protocol: ESP, Mode: Transport, Dst: v4, Suite: mustSuite(t, ESP, "aes128gcm16")}
	}
	with := func(change func(*SA)) *SA { s := gcm(); change(s); return s }
	ah := &SA{Protocol: AH, Mode: Transport, Dst: v4, Suite: mustSuite(t, AH, "aes128gmac")}
	for _, c := range []struct {
		profile     string
		sa, partner *SA
		missing     string // "" where supported
	}{
		{"full", with(func(s *SA) { s.Dst, s.Mode, s.Encap, s.ESN = v6, Tunnel, true, true }), nil, ""},
		{"full", ah, gcm(), ""},
		{"ndis-v1", gcm(), nil, "aes128gcm16"},
		{"ndis-v1", with(func(s *SA) { s.Dst = v6 }), nil, "IPv6"},
		{"ndis-v1", with(func(s *SA) { s.ESN = true }), nil, "Esn"},
		{"ndis-v1", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "3des-md5") }), nil, ""},
		{"ndis-v1", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "3des-sha256") }), nil, "sha256"},
		{"ndis-v2", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "aes256-sha256") }), nil, ""},
		{"ndis-v2", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "aes128gcm8") }), nil, "aes128gcm8"},
		{"ndis-v2", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "aes128-sha256_96") }), nil, "sha256_96"},
		{"ixgbe-82599", gcm(), nil, ""},
		{"ixgbe-82599", ah, nil, ""},
		{"ixgbe-82599", ah, gcm(), "AhEspCombined"},
		{"ixgbe-82599", with(func(s *SA) { s.Mode = Tunnel }), nil, "Tunnel"},
		{"ixgbe-82599", with(func(s *SA) { s.Encap = true }), nil, "UdpEsp.Transport"},
		{"ixgbe-82599", with(func(s *SA) { s.Suite = mustSuite(t, ESP, "aes128gmac") }), nil, ""},
		{"mlx5-crypto", with(func(s *SA) { s.Mode, s.ESN, s.Dst = Tunnel, true, v6 }), nil, ""},
		{"mlx5-crypto", with(func(s *SA) { s.Mode, s.Encap = Tunnel, true }), nil, "UdpEsp.Tunnel"},
		{"mlx5-crypto", ah, nil, "Ah"},
		{"mlx5-crypto", with(func(s *SA) { s.Dst = netip.Addr{} }), nil, ""},
	} {
		p, err := ProfileByName(c.profile)
		if err != nil {
			t.Fatal(err)
		}
		err = p.Supports(c.sa, c.partner)
		if (err == nil) != (c.missing == "") || err != nil && !strings.HasSuffix(err.Error(), " "+c.missing) {
			t.Errorf("%s, %s %s: %v, expected %q to be missing", c.profile, c.sa, c.sa.Suite.Name, err, c.missing)
		}
	}
}

// All that an SA asks of a NIC is asked at once, and nothing else is.
func TestNeed(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		sa   SA
		want Flags
	}{
		{SA{Protocol: ESP, Mode: Transport, Dst: v4}, CapESP | CapTransport | IPv4},
		{SA{Protocol: AH, Mode: Tunnel, Dst: v6}, CapAH | CapTunnel | IPv6},
		{SA{Protocol: ESP, Mode: Auto, Dst: v4}, CapESP | CapTransport | CapTunnel | IPv4},
		{SA{Protocol: ESP, Mode: Auto, Encap: true}, CapESP | CapTransport | CapTunnel | UDPTransport | UDPTunnel},
		{SA{Protocol: ESP, Mode: Tunnel, Dst: v4, Encap: true, ESN: true}, CapESP | CapTunnel | IPv4 | UDPTunnel | CapESN},
		{SA{Protocol: ESP, Mode: Transport, Dst: v6, Encap: true}, CapESP | CapTransport | IPv6 | UDPTransport},
		{SA{Protocol: ESP, Mode: Transport}, CapESP | CapTransport},
	} {
		if got := need(&c.sa); got != c.want {
			t.Errorf("%+v needs %s, want %s", c.sa, got, c.want)
		}
	}
}

// Each flag has a name of its own.
func TestFlagsString(t *testing.T) {
	names := strings.Fields(everything.String())
	slices.Sort(names)
	if len(names) != AllFlags || len(slices.Compact(names)) != AllFlags {
		t.Errorf("%d flags have the names %v", AllFlags, names)
	}
	if got := (CapESN | CapAH).String(); got != "Ah Esn" {
		t.Errorf("%q", got)
	}
}
