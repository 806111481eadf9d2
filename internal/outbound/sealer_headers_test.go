package outbound_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/internal/outbound"
	"tapsec/sa"
)

// decode has gopacket read a packet, and judge lengths and checksums.
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
	var network gopacket.NetworkLayer
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
			if int(l.Length) != len(l.Contents)+len(l.Payload) {
				t.Errorf("IPv4 length %d of %d", l.Length, len(l.Contents)+len(l.Payload))
			}
			expectSum(t, l, l.Contents[10:])
		case *layers.IPv6:
			network = l
			if l == p.Layers()[0] && int(l.Length) != len(packet)-40 {
				t.Errorf("IPv6 length %d of %d", l.Length, len(packet)-40)
			}
		case *layers.UDP:
			expectUDP(t, l, network)
		case *layers.ICMPv4:
			expectSum(t, l, l.Contents[2:], gopacket.Payload(l.Payload))
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(network)
			expectSum(t, l, l.Contents[2:], gopacket.Payload(l.Payload))
		}
	}
	return p
}

// expectUDP wants a right checksum, or none where UDP over IPv4 encapsulates
// ESP (RFC 3948 section 2.1).
func expectUDP(t *testing.T, l *layers.UDP, network gopacket.NetworkLayer) {
	t.Helper()
	if int(l.Length) != len(l.Contents)+len(l.Payload) {
		t.Errorf("UDP length %d of %d", l.Length, len(l.Contents)+len(l.Payload))
	}
	_, over4 := network.(*layers.IPv4)
	if over4 && l.DstPort == sa.EncapPort {
		if l.Checksum != 0 {
			t.Errorf("UDP-ESP over IPv4 has the checksum %#x", l.Checksum)
		}
		return
	}
	_ = l.SetNetworkLayerForChecksum(network)
	expectSum(t, l, l.Contents[6:], gopacket.Payload(l.Payload))
}

// expectSum has gopacket make the layer anew and compares the checksum.
func expectSum(t *testing.T, l gopacket.SerializableLayer, sum []byte, payload ...gopacket.SerializableLayer) {
	t.Helper()
	got := binary.BigEndian.Uint16(sum)
	buf := gopacket.NewSerializeBuffer()
	stack := append([]gopacket.SerializableLayer{l}, payload...)
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	at := map[gopacket.LayerType]int{layers.LayerTypeIPv4: 10, layers.LayerTypeUDP: 6}[l.LayerType()]
	if at == 0 {
		at = 2 // ICMP
	}
	if want := binary.BigEndian.Uint16(buf.Bytes()[at:]); got != want {
		t.Errorf("%s: checksum %#04x, want %#04x", l.LayerType(), got, want)
	}
}

func TestHeaders(t *testing.T) {
	each(t, func(t *testing.T, k stack, packet []byte) {
		decode(t, packet)
		p := decode(t, seal(t, packet, k.sas...))
		if len(k.sas) == 0 {
			return
		}
		a := k.sas[len(k.sas)-1]
		if esp, ok := p.Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP); ok && a.Protocol == sa.ESP {
			if esp.SPI != a.SPI || esp.Seq != 1 {
				t.Errorf("ESP with SPI %#x and number %d", esp.SPI, esp.Seq)
			}
		} else if ah, ok := p.Layer(layers.LayerTypeIPSecAH).(*layers.IPSecAH); ok {
			if ah.SPI != a.SPI || ah.Seq != 1 || ah.Reserved != 0 {
				t.Errorf("AH with SPI %#x, number %d, reserved %d", ah.SPI, ah.Seq, ah.Reserved)
			}
		} else if !a.Encap {
			t.Error("no IPsec header found")
		}
	})
}

// The outer header copies DSCP, ECN and DF (RFC 4301 section 5.1.2, RFC 6040). Its
// identification counts, and begins somewhere else in each Sealer: the fragments of
// the one before may still wait for others (RFC 6864 section 4.3).
func TestOuterHeader(t *testing.T) {
	v4, v6 := udp(4, 10), udp(6, 10)
	v4[1], v6[0], v6[1] = 0xb9, 0x6b, 0x90
	df := bytes.Clone(v4)
	df[6] = 0x40
	mended(v4)
	mended(df)
	begins := map[uint16]bool{}
	for _, c := range []struct {
		name  string
		inner []byte
		df    bool
	}{{"IPv4", v4, false}, {"IPv4 with DF", df, true}, {"IPv6", v6, true}} {
		s, err := outbound.NewSealer(nil, newSA(1, sa.ESP, sa.Tunnel, "aes128gcm16", gateways[4]))
		if err != nil {
			t.Fatal(err)
		}
		var first uint16
		for n := range uint16(2) {
			sealed, err := s.Seal(nil, c.inner)
			if err != nil {
				t.Fatal(err)
			}
			ip := decode(t, sealed).NetworkLayer().(*layers.IPv4)
			if n == 0 {
				first, begins[ip.Id] = ip.Id, true
			}
			if ip.TOS != 0xb9 || ip.TTL != 64 || ip.Id != first+n || (ip.Flags == layers.IPv4DontFragment) != c.df {
				t.Errorf("%s, packet %d: %+v", c.name, n, ip)
			}
		}
		ip := decode(t, seal(t, c.inner, newSA(1, sa.AH, sa.Tunnel, "sha256", gateways[6]))).NetworkLayer().(*layers.IPv6)
		if ip.TrafficClass != 0xb9 || ip.HopLimit != 64 || ip.FlowLabel != 0 {
			t.Errorf("%s: %+v", c.name, ip)
		}
	}
	if len(begins) == 1 {
		t.Errorf("three Sealers begin with the same identification: %v", begins)
	}
}
