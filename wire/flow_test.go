package wire_test

import (
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/wire"
)

// Neighbour discovery passes the policy, so nothing else may look like it (RFC 4861
// section 7.1): ICMPv6 of the types 133 to 137, whole, and with the hop limit that no
// router leaves.
func TestIsNeighborDiscovery(t *testing.T) {
	from, to := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	discovery := func(kind byte) []byte {
		b := forge.Echo(nil, from, to, 1, 1, nil)
		b[7], b[40] = 255, kind
		return b
	}
	is := func(b []byte) bool {
		p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if err != nil {
			t.Fatal(err)
		}
		return wire.IsNeighborDiscovery(b, &p)
	}
	for kind := range 256 {
		if got, want := is(discovery(byte(kind))), kind >= 133 && kind <= 137; got != want {
			t.Errorf("type %d: %v, want %v", kind, got, want)
		}
	}
	forwarded := discovery(135)
	forwarded[7] = 254
	empty := discovery(135)[:40]
	empty[5] = 0
	udp := discovery(135)
	udp[6] = wire.ProtoUDP
	v4 := forge.Echo(nil, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 1, nil)
	v4[7], v4[9], v4[20] = 255, wire.ProtoICMPv6, 135
	for name, b := range map[string][]byte{
		"forwarded": forwarded, "empty": empty, "UDP": udp, "IPv4": v4,
		"a fragment": forge.Extension(nil, discovery(135), wire.ProtoFragment, make([]byte, 8)),
	} {
		if is(b) {
			t.Errorf("%s passes as neighbour discovery", name)
		}
	}
}

// What a packet shows of its flow (contract, The transport, step 7).
func TestFlowOf(t *testing.T) {
	frame := append(make([]byte, 20), 0x12, 0x34, 0x56, 0x78)
	for name, c := range map[string]struct {
		packet wire.Packet
		shown  wire.Shown
		ports  bool
	}{
		"ports":                       {wire.Packet{Version: 4, Proto: wire.ProtoUDP, Header: 20, Reach: 24}, wire.ShownAll, true},
		"no protocol with ports":      {wire.Packet{Version: 4, Proto: wire.ProtoICMP, Header: 20, Reach: 24}, wire.ShownAll, false},
		"half the ports":              {wire.Packet{Version: 4, Proto: wire.ProtoUDP, Header: 20, Reach: 23}, wire.ShownProtocol, false},
		"later, IPv4":                 {wire.Packet{Version: 4, Proto: wire.ProtoDestOpts, Header: 20, Reach: 24, Later: true}, wire.ShownProtocol, false},
		"later, IPv6":                 {wire.Packet{Version: 6, Proto: wire.ProtoUDP, Header: 20, Reach: 24, Later: true}, wire.ShownProtocol, false},
		"whole, mobility":             {wire.Packet{Version: 6, Proto: 135, Header: 20, Reach: 24}, wire.ShownAll, false},
		"later, an extension of IPv6": {wire.Packet{Version: 6, Proto: wire.ProtoDestOpts, Header: 20, Reach: 24, Later: true}, wire.ShownAddresses, false},
	} {
		got, want := wire.FlowOf(frame, &c.packet), wire.Flow{Protocol: c.packet.Proto, Shown: c.shown}
		if c.ports {
			want.SrcPort, want.DstPort = 0x1234, 0x5678
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// A fragment splits the headers if it is a first one without all of the upper layer's, or a later one that begins
// before their end (RFC 7112 section 5, RFC 1858 section 3).
func TestShortChain(t *testing.T) {
	const more = 0x20
	is := func(proto, flags, offset byte, data int) bool {
		b := append([]byte{0x45, 0, 0, byte(20 + data), 0, 1, flags, offset, 64, proto}, make([]byte, 10+data)...)
		p, err := wire.ParseIP(b, 0, len(b), 4)
		if err != nil {
			t.Fatal(err)
		}
		return wire.ShortChain(b, &p)
	}
	needs := map[int]int{1: 8, 6: 20, 17: 8, 33: 12, 50: 8, 51: 12, 58: 8, 132: 12, 136: 8}
	for proto := range 256 {
		for n := range 32 {
			if got, want := is(byte(proto), more, 0, n), n < needs[proto]; got != want {
				t.Errorf("protocol %d, first with %d bytes: %v", proto, n, got)
			}
			if got, want := is(byte(proto), 0, byte(n), 8), n > 0 && n*8 < needs[proto]; got != want {
				t.Errorf("protocol %d, offset %d: %v", proto, n*8, got)
			}
		}
	}
}

// The numbers are those of the IEEE's and IANA's lists, of LLC those of RFC 1042.
func TestMayHideIP(t *testing.T) {
	hide := []int{0x8847, 0x8848, 0x8864, 0x880b, 0x9100, 0x9200, 0x9300, 0x88e7, 0x893f, 0x8926, 0x88e5, 0x892f, 0x22f3, 0x894f, 0x4305}
	for etherType := range 1 << 16 {
		if got, want := wire.MayHideIP(uint16(etherType), []byte{0x42, 0x42, 3}), slices.Contains(hide, etherType); got != want {
			t.Errorf("%#04x: %v", etherType, got)
		}
		if got, want := wire.MayHideIP(uint16(etherType), []byte{6}), etherType < 0x600 || slices.Contains(hide, etherType); got != want {
			t.Errorf("%#04x, and IP's SAP: %v", etherType, got)
		}
	}
	for llc, want := range map[string]bool{
		"": false, "\x06": true, "\x07\x06\x03": true, "\x05": false, "\x08": false,
		"\xaa\xaa\x03\x00\x00": false, "\xaa\xaa\x03\x00\x00\x00": true, "\xab\xaa\x03\x00\x00\x00": true, "\xaa\xaa\x03\x00\x00\xf8\x08": true,
		"\xaa\xaa\x03\x00\x00\xf9": false, "\xaa\xaa\x03\x00\x01\x00": false, "\xac\xaa\x03\x00\x00\x00": false, "\xa8\xaa\x03\x00\x00\x00": false,
	} {
		if wire.MayHideIP(60, []byte(llc)) != want {
			t.Errorf("LLC %x: %v", llc, !want)
		}
	}
}
