package wire_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/wire"
)

// packets are IP packets of many kinds, made by gopacket.
func packets(t testing.TB) [][]byte {
	t.Helper()
	src4, dst4 := net.IPv4(192, 0, 2, 1), net.IPv4(198, 51, 100, 7)
	src6, dst6 := net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8:7::2")
	ip4 := func(proto layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 3, Protocol: proto, SrcIP: src4, DstIP: dst4}
	}
	ip6 := func(next layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 3, NextHeader: next, SrcIP: src6, DstIP: dst6}
	}
	udp := &layers.UDP{SrcPort: 4500, DstPort: 4500}
	esp := gopacket.Payload{0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9, 9, 9}
	options, first, later := ip4(50), ip4(50), ip4(17)
	options.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	first.Flags, later.FragOffset = layers.IPv4MoreFragments, 9
	raw := func(b ...byte) gopacket.Payload { return gopacket.Payload(append(b, esp...)) }
	var all [][]byte
	for _, stack := range [][]gopacket.SerializableLayer{
		{ip4(17), udp, esp}, {ip4(50), esp}, {options, esp}, {first, esp}, {later, esp}, {ip4(51)}, {ip4(4), ip4(6)},
		{ip6(17), udp, esp}, {ip6(50), esp}, {ip6(59)}, {ip6(41), ip6(50), esp}, {ip6(135), esp},
		{ip6(0), raw(50, 0, 5, 2, 0, 0, 1, 0)}, {ip6(60), raw(50, 0, 1, 4, 0, 0, 0, 0)}, {ip6(44), raw(50, 0, 0, 1, 0, 0, 0, 5)},
		{ip6(44), raw(50, 0, 0, 8, 0, 0, 0, 5)}, {ip6(44), raw(50, 0, 0, 0, 0, 0, 0, 5)},
		{ip6(43), raw(50, 2, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8)}, {ip6(43), raw(51, 0, 0, 1, 0, 0, 0, 0)},
		{ip6(43), raw(51, 0, 4, 0, 0, 0, 0, 0)}, {ip6(0), raw(60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 50, 0, 0, 1, 0, 0, 0, 7)},
		{ip6(60), raw(0, 0, 1, 4, 0, 0, 0, 0, 50, 0, 1, 4, 0, 0, 0, 0)}, {ip6(60), gopacket.Payload{50, 9, 0, 0, 0, 0, 0, 0}},
	} {
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, stack...); err != nil {
			t.Fatal(err)
		}
		all = append(all, append([]byte(nil), buf.Bytes()...))
	}
	return all
}

// gopacket decodes every packet it made, and finds the same.
func TestParseIPAgainstGopacket(t *testing.T) {
	for i, b := range packets(t) {
		version := b[0] >> 4
		agree(t, b, 0, version)
		p, err := wire.ParseIP(b, 0, len(b), version)
		if err != nil || p.OddRoute {
			continue // gopacket takes hop-by-hop anywhere, and knows routing type 0 only
		}
		if version == 4 {
			judge4(t, i, b, p)
		} else {
			judge6(t, i, b, p)
		}
	}
}

func judge4(t *testing.T, i int, b []byte, p wire.Packet) {
	t.Helper()
	ip := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	if p.Proto != uint8(ip.Protocol) || p.Header != int(ip.IHL)*4 || p.End != int(ip.Length) || p.Src != src || p.Dst != dst ||
		p.Options != (len(ip.Options) > 0) || p.Later != (ip.FragOffset > 0) ||
		p.Fragment != (ip.FragOffset > 0 || ip.Flags&layers.IPv4MoreFragments != 0) {
		t.Errorf("packet %d: %+v, gopacket finds %+v", i, p, ip)
	}
}

func judge6(t *testing.T, i int, b []byte, p wire.Packet) {
	t.Helper()
	packet := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default)
	ip := packet.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	header, next := 40, ip.NextHeader
	fragment := false
	for _, l := range packet.Layers()[1:] {
		switch l := l.(type) {
		case *layers.IPv6HopByHop:
			next, header = l.NextHeader, header+len(l.Contents)
		case *layers.IPv6Destination:
			next, header = l.NextHeader, header+len(l.Contents)
		case *layers.IPv6Routing:
			next, header = l.NextHeader, header+len(l.Contents)
			if p.Routed != (l.SegmentsLeft > 0) || p.OddRoute != (l.RoutingType != 0) {
				t.Errorf("packet %d: %+v, gopacket finds the routing header %+v", i, p, l)
			}
		case *layers.IPv6Fragment:
			fragment = true
			next, header = l.NextHeader, header+len(l.Contents)
			if p.Later != (l.FragmentOffset > 0) {
				t.Errorf("packet %d: %+v, gopacket finds the fragment header %+v", i, p, l)
			}
		default:
			goto done
		}
	}
done:
	if p.Proto != uint8(next) || p.Header != header || p.Src != src || p.Dst != dst || p.Fragment != fragment ||
		p.Extended != (header > 40) || !p.Jumbo && p.End != 40+int(ip.Length) {
		t.Errorf("packet %d: %+v, gopacket finds next header %d at %d in %+v", i, p, next, header, ip)
	}
}

// VLAN tags as gopacket writes them.
func TestEthernetAgainstGopacket(t *testing.T) {
	eth := func(next layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: next}
	}
	tag := func(next layers.EthernetType) *layers.Dot1Q { return &layers.Dot1Q{VLANIdentifier: 77, Type: next} }
	const v4, v6, q, ad = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ
	body := gopacket.Payload{0x45, 1, 2, 3}
	for _, f := range []struct {
		stack []gopacket.SerializableLayer
		want  uint16
		at    int
	}{
		{[]gopacket.SerializableLayer{eth(v4), body}, 0x0800, 14},
		{[]gopacket.SerializableLayer{eth(q), tag(v6), body}, 0x86dd, 18},
		{[]gopacket.SerializableLayer{eth(ad), tag(q), tag(v4), body}, 0x0800, 22},
		{[]gopacket.SerializableLayer{eth(q), tag(q), tag(q), tag(v4), body}, 0, 0},
	} {
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, f.stack...); err != nil {
			t.Fatal(err)
		}
		etherType, at, ok := wire.Ethernet(buf.Bytes())
		if etherType != f.want || at != f.at || ok != (f.want != 0) {
			t.Errorf("% x: %#x at %d, %v", buf.Bytes(), etherType, at, ok)
		}
		for n := range buf.Bytes() { // a frame may be cut anywhere
			etherType, at, ok := wire.Ethernet(buf.Bytes()[:n])
			if wantType, wantAt, want := slowEthernet(buf.Bytes()[:n]); etherType != wantType || at != wantAt || ok != want {
				t.Errorf("% x: %#x at %d, %v", buf.Bytes()[:n], etherType, at, ok)
			}
		}
	}
}
