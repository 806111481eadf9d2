package wire_test

import (
	"net/netip"
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
