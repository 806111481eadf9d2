package sa

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Flags are the capabilities that a NIC advertises, named as NDIS names them.
type Flags uint32

// The capabilities. The UDP ones say which part is encapsulated.
const (
	IPv4 Flags = 1 << iota
	IPv6
	IPv4Options
	IPv6ExtensionHeaders
	CapAH
	CapESP
	AHESPCombined
	CapTransport
	CapTunnel
	TransportTunnelCombined
	CapESN
	UDPTransport           // UDP-encapsulated transport portion, alone
	UDPTunnel              // UDP-encapsulated tunnel portion, alone
	TransportOverUDPTunnel // plain transport portion inside a UDP-encapsulated tunnel
	UDPTransportOverTunnel // UDP-encapsulated transport portion inside a plain tunnel
	AllFlags               = iota
)

var flagNames = [AllFlags]string{
	"IPv4", "IPv6", "IPv4Options", "IPv6ExtensionHeaders", "Ah", "Esp", "AhEspCombined",
	"Transport", "Tunnel", "TransportTunnelCombined", "Esn", "UdpEsp.Transport", "UdpEsp.Tunnel",
	"UdpEsp.TransportOverUdpTunnel", "UdpEsp.UdpTransportOverTunnel",
}

const everything Flags = 1<<AllFlags - 1

// String lists the flags' names.
func (f Flags) String() string {
	var names []string
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// Profile says what the modelled NIC advertises; what it does not advertise it
// does not do.
type Profile struct {
	Name       string
	Flags      Flags
	Algorithms []string // suite keywords (Suite.Algorithms); nil is every one
	Capacity   int      // SA bundles; 0 sets no bound
	Legacy     bool     // has nothing but legacy algorithms to offer
}

// Has reports whether the profile has all these flags.
func (p Profile) Has(f Flags) bool { return p.Flags&f == f }

// Advertised says of every flag, by name, whether the profile has it.
func (p Profile) Advertised() map[string]bool {
	all := map[string]bool{}
	for i, name := range flagNames {
		all[name] = p.Has(1 << i)
	}
	return all
}

// Keywords are those of the algorithms that the profile has, in order.
func (p Profile) Keywords() []string {
	if p.Algorithms != nil {
		return slices.Sorted(slices.Values(p.Algorithms))
	}
	var all []string
	for _, suite := range slices.Concat(Suites(ESP), Suites(AH)) {
		all = append(all, suite.Algorithms()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var (
	v1Algorithms = []string{"des", "3des", "null", "md5", "sha1"}
	v2Algorithms = append([]string{
		"aes128", "aes192", "aes256", "aes128gcm16", "aes192gcm16", "aes256gcm16",
		"aes128gmac", "aes192gmac", "aes256gmac", "sha256",
	}, v1Algorithms...)
)

// Profiles are the profiles that a configuration can name.
var Profiles = []Profile{
	{Name: "full", Flags: everything},
	{Name: "ndis-v1", Flags: everything &^ (IPv6 | IPv6ExtensionHeaders | CapESN), Algorithms: v1Algorithms, Legacy: true},
	{Name: "ndis-v2", Flags: everything, Algorithms: v2Algorithms},
	{Name: "ixgbe-82599", Flags: IPv4 | IPv6 | CapAH | CapESP | CapTransport,
		Algorithms: []string{"aes128gcm16", "aes128gmac"}, Capacity: 1024},
	{Name: "mlx5-crypto", Flags: IPv4 | IPv6 | CapESP | CapTransport | CapTunnel | CapESN,
		Algorithms: []string{"aes128gcm16", "aes256gcm16"}},
}

// ProfileByName finds a profile; the empty name is "full".
func ProfileByName(name string) (Profile, error) {
	name = cmp.Or(name, "full")
	for _, p := range Profiles {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("expected %s, found %s", OneOf(ProfileNames()), Quote(name))
}

// ProfileNames returns the names of all profiles.
func ProfileNames() (names []string) {
	for _, p := range Profiles {
		names = append(names, p.Name)
	}
	return names
}

// Unsupported is the error for an SA that is beyond a profile.
type Unsupported struct {
	Profile string
	Missing string // flags by name, or a suite's keyword
	flags   bool
}

// Error names what is missing.
func (u *Unsupported) Error() string {
	if u.flags {
		return fmt.Sprintf("profile %s lacks %s", u.Profile, u.Missing)
	}
	return fmt.Sprintf("profile %s lacks the algorithm %s", u.Profile, u.Missing)
}

// Supports reports whether the NIC can hold the SA, alone or with the partner of
// its bundle. The error is an *Unsupported.
func (p Profile) Supports(s, partner *SA) error {
	need := need(s)
	if partner != nil {
		need |= AHESPCombined
	}
	if missing := need &^ p.Flags; missing != 0 {
		return &Unsupported{p.Name, missing.String(), true}
	}
	if p.Algorithms == nil {
		return nil
	}
	for _, a := range s.Suite.Algorithms() {
		if !slices.Contains(p.Algorithms, a) {
			return &Unsupported{p.Name, a, false}
		}
	}
	return nil
}

// need is what an SA asks of a NIC by itself.
func need(s *SA) (f Flags) {
	transport, tunnel := s.Mode != Tunnel, s.Mode != Transport // both for Auto
	for _, need := range [...]struct {
		flag  Flags
		asked bool
	}{
		{CapESP, s.Protocol == ESP}, {CapAH, s.Protocol == AH},
		{CapTransport, transport}, {CapTunnel, tunnel},
		{UDPTransport, transport && s.Encap}, {UDPTunnel, tunnel && s.Encap},
		{IPv4, s.Dst.Is4()}, {IPv6, s.Dst.Is6()}, {CapESN, s.ESN},
	} {
		if need.asked {
			f |= need.flag
		}
	}
	return f
}
