package forge

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/wire"
)

// Ends of the packets that are built, and of the tunnels around them.
var (
	hosts    = map[int][2]string{4: {"10.1.0.1", "10.2.0.1"}, 6: {"2001:db8:1::1", "2001:db8:2::1"}}
	gateways = map[int][2]string{4: {"192.0.2.1", "192.0.2.2"}, 6: {"2001:db8::1", "2001:db8::2"}}
)

// udp is a packet between the hosts of an IP version.
func udp(version, payload int) []byte {
	from := netip.AddrPortFrom(netip.MustParseAddr(hosts[version][0]), 7)
	to := netip.AddrPortFrom(netip.MustParseAddr(hosts[version][1]), 4242)
	return UDP(nil, from, to, bytes.Repeat([]byte{0xa5}, payload))
}

// decode has gopacket read a packet and make it anew, with lengths and checksums
// of its own: both must be the same bytes.
func decode(t *testing.T, packet []byte) gopacket.Packet {
	t.Helper()
	first := layers.LayerTypeIPv4
	if packet[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(packet, first, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatal(e.Error())
	}
	var all []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		if sums, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = sums.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		s, ok := l.(gopacket.SerializableLayer)
		if !ok {
			t.Fatalf("no judge of %s", l.LayerType())
		}
		all = append(all, s)
		if icmp, ok := l.(*layers.ICMPv6); ok { // gopacket loses what follows its echo
			all = append(all, gopacket.Payload(icmp.Payload))
			break
		}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), packet) {
		t.Errorf("gopacket makes\n%x of\n%x", buf.Bytes(), packet)
	}
	return p
}

func TestUDP(t *testing.T) {
	for _, version := range []int{4, 6} {
		for n := range 70 {
			packet := udp(version, n)
			p := decode(t, packet)
			u, ok := p.TransportLayer().(*layers.UDP)
			if !ok || u.SrcPort != 7 || u.DstPort != 4242 || len(u.Payload) != n {
				t.Errorf("IPv%d, %d bytes: %v", version, n, p)
			}
		}
	}
}

// A checksum that comes out as 0 is sent as 0xffff (RFC 768).
func TestUDPChecksumIsNeverZero(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	packet := UDP(nil, from, to, []byte{0, 0})
	copy(packet[28:], packet[26:28]) // a payload that brings the sum to 0
	payload := bytes.Clone(packet[28:30])
	if packet = UDP(nil, from, to, payload); packet[26] != 0xff || packet[27] != 0xff {
		t.Errorf("checksum %x", packet[26:28])
	}
}

func TestEcho(t *testing.T) {
	for _, version := range []int{4, 6} {
		from, to := netip.MustParseAddr(hosts[version][0]), netip.MustParseAddr(hosts[version][1])
		p := decode(t, Echo(nil, from, to, 0x1234, 0x5678, []byte("odd")))
		var body []byte
		if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && version == 4 {
			if l.TypeCode.Type() != layers.ICMPv4TypeEchoRequest || l.Id != 0x1234 || l.Seq != 0x5678 {
				t.Errorf("%+v", l)
			}
			continue
		}
		l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if ok {
			body = l.Payload
		}
		if !ok || l.TypeCode.Type() != layers.ICMPv6TypeEchoRequest || !bytes.Equal(body, []byte("\x12\x34\x56\x78odd")) {
			t.Errorf("%v", p)
		}
	}
}

func TestOptions(t *testing.T) {
	packet := Options([]byte("x"), Options(nil, udp(4, 8), []byte{148, 4, 0, 0}), []byte{130, 3, 9})[1:]
	ip := decode(t, packet).NetworkLayer().(*layers.IPv4)
	if ip.IHL != 7 || len(ip.Options) < 2 || ip.Options[0].OptionType != 148 || ip.Options[1].OptionType != 130 {
		t.Errorf("%+v", ip)
	}
	if !bytes.Equal(packet[28:], udp(4, 8)[20:]) {
		t.Error("the payload changed")
	}
}

// Extension headers stand in the order in which they were added.
func TestExtension(t *testing.T) {
	packet := Extension(nil, udp(6, 8), wire.ProtoHopByHop, []byte{0, 0, 1, 4, 0, 0, 0, 0})
	packet = Extension([]byte("x"), packet, wire.ProtoDestOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0})[1:]
	var kinds []gopacket.LayerType
	for _, l := range decode(t, packet).Layers()[:4] {
		kinds = append(kinds, l.LayerType())
	}
	want := []gopacket.LayerType{layers.LayerTypeIPv6, layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Destination, layers.LayerTypeUDP}
	for i := range want {
		if kinds[i] != want[i] {
			t.Fatalf("got %v, want %v", kinds, want)
		}
	}
}

func TestAppendFrame(t *testing.T) {
	for _, version := range []int{4, 6} {
		etherType := map[int]string{4: "0800", 6: "86dd"}[version]
		for want, tags := range map[string][]uint32{
			"":                 nil,
			"81000064":         {0x8100_0064},
			"88a8006581000064": {0x88a8_0065, 0x8100_0064},
		} {
			frame := AppendFrame([]byte("x"), udp(version, 8), tags...)[1:]
			l3 := 14 + 4*len(tags)
			if got := hex.EncodeToString(frame[:l3]); got != "020000000002020000000001"+want+etherType {
				t.Errorf("header %s", got)
			}
			if !bytes.Equal(frame[l3:], udp(version, 8)) {
				t.Errorf("packet %x", frame[l3:])
			}
		}
	}
}

func TestBuildersPanic(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	for name, f := range map[string]func(){
		"two IP versions":      func() { UDP(nil, v4, v6, nil) },
		"over 65535 bytes":     func() { UDP(nil, v4, v4, make([]byte, 65535-27)) },
		"options in IPv6":      func() { Options(nil, udp(6, 1), make([]byte, 4)) },
		"41 bytes of options":  func() { Options(nil, udp(4, 1), make([]byte, 41)) },
		"an extension in IPv4": func() { Extension(nil, udp(4, 1), wire.ProtoDestOpts, make([]byte, 8)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
