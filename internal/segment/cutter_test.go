package segment

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

// shape is a flow of frames that might be merged. gopacket makes each of its frames by itself.
type shape struct {
	tags      []uint16 // EtherTypes
	v6, tcp   bool
	extended  bool   // IPv4 options, an IPv6 extension header
	unsummed  bool   // UDP without a checksum, in IPv4
	tunnel    string // "" for none
	outerV6   bool
	outerSum  bool // of a tunnel's UDP
	id        uint16
	seq       uint32
	fin, psh  bool // of the last
	cwr, ece  bool // cwr of the first
	ofTCP     []byte
	size      int
	upperSize int // set by build: bytes behind the start of the TCP or UDP header
}

func drawShape(t *rapid.T) *shape {
	bit := func(name string) bool { return rapid.Bool().Draw(t, name) }
	s := &shape{
		tags: rapid.SliceOfN(rapid.SampledFrom([]uint16{0x8100, 0x88a8}), 0, 3).Draw(t, "tags"),
		v6:   bit("v6"), tcp: bit("tcp"), extended: bit("extended"),
		tunnel:  rapid.SampledFrom([]string{"", "", "vxlan", "gre", "ip"}).Draw(t, "tunnel"),
		outerV6: bit("outer v6"), id: rapid.Uint16().Draw(t, "id"), seq: rapid.Uint32().Draw(t, "seq"),
		fin: bit("fin"), psh: bit("psh"), cwr: bit("cwr"), ece: bit("ece"),
		ofTCP: make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "words of options")),
		size:  rapid.IntRange(1, 3000).Draw(t, "size"),
	}
	s.outerSum = s.outerV6 || bit("outer sum")
	s.unsummed = !s.tcp && !s.v6 && s.tunnel == "" && bit("no sum")
	return s
}

// network is an IP header of the flow and what stands between it and the upper layer.
func (s *shape) network(v6, extended bool, proto layers.IPProtocol, number int) (gopacket.NetworkLayer, []gopacket.SerializableLayer) {
	if v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 3, TrafficClass: 3, FlowLabel: 0x12345, NextHeader: proto,
			SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8:7::2")}
		if !extended {
			return ip, []gopacket.SerializableLayer{ip}
		}
		ip.NextHeader = layers.IPProtocolIPv6Destination
		return ip, []gopacket.SerializableLayer{ip, gopacket.Payload{byte(proto), 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	}
	ip := &layers.IPv4{Version: 4, TTL: 3, TOS: 3, Id: s.id + uint16(number), Protocol: proto, SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(198, 51, 100, 7)}
	if extended {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	}
	return ip, []gopacket.SerializableLayer{ip}
}

func etherType(v6 bool) layers.EthernetType {
	if v6 {
		return layers.EthernetTypeIPv6
	}
	return layers.EthernetTypeIPv4
}

// build makes the frame of the flow that has this payload, as gopacket would send it.
func (s *shape) build(t rapid.TB, payload []byte, number int, last bool) []byte {
	upper := s.upper(payload, number, last)
	proto := layers.IPProtocolUDP
	if s.tcp {
		proto = layers.IPProtocolTCP
	}
	ip, stack := s.network(s.v6, s.extended, proto, number)
	upper.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}).SetNetworkLayerForChecksum(ip)
	stack = append(stack, upper, gopacket.Payload(payload))
	outermost := s.v6
	if s.tunnel != "" {
		stack, outermost = append(s.around(number), stack...), s.outerV6
	}
	link := gopacket.Payload("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01") // gopacket's own layer would pad
	for i, tag := range s.tags {
		link = append(binary.BigEndian.AppendUint16(link, tag), 0x20, byte(i))
	}
	link = binary.BigEndian.AppendUint16(link, uint16(etherType(outermost)))
	stack = append([]gopacket.SerializableLayer{link}, stack...)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	frame := bytes.Clone(buf.Bytes())
	s.upperSize = len(payload) + 8
	if s.tcp {
		s.upperSize = len(payload) + 20 + len(s.ofTCP)
	}
	if s.unsummed {
		clear(frame[len(frame)-s.upperSize+6:][:2])
	} else if !s.tcp {
		neverNone(frame[len(frame)-s.upperSize:])
	}
	if s.tunnel == "vxlan" {
		outer := frame[14+4*len(s.tags)+map[bool]int{false: 20, true: 40}[s.outerV6]:]
		if neverNone(outer); !s.outerSum {
			clear(outer[6:8])
		}
	}
	return frame
}

// neverNone does what gopacket leaves out: a UDP checksum that comes to zero is sent as
// all ones, since zero is none (RFC 768).
func neverNone(udp []byte) {
	if sum := udp[6:8]; sum[0]|sum[1] == 0 {
		sum[0], sum[1] = 0xff, 0xff
	}
}

func (s *shape) upper(payload []byte, number int, last bool) gopacket.SerializableLayer {
	if !s.tcp {
		return &layers.UDP{SrcPort: 4500, DstPort: 4500}
	}
	var options []layers.TCPOption
	for range s.ofTCP {
		options = append(options, layers.TCPOption{OptionType: 1})
	}
	return &layers.TCP{SrcPort: 7, DstPort: 9, Seq: s.seq + uint32(number*s.size), Ack: 5, ACK: true, Window: 77, Options: options,
		FIN: s.fin && last, PSH: s.psh && last, CWR: s.cwr && number == 0, ECE: s.ece}
}

// around is a tunnel in front of the innermost packet.
func (s *shape) around(number int) []gopacket.SerializableLayer {
	switch s.tunnel {
	case "gre":
		_, stack := s.network(s.outerV6, false, layers.IPProtocolGRE, number)
		return append(stack, &layers.GRE{KeyPresent: true, Key: 9, Protocol: etherType(s.v6)})
	case "vxlan":
		udp := &layers.UDP{SrcPort: 777, DstPort: 4789}
		ip, stack := s.network(s.outerV6, false, layers.IPProtocolUDP, number)
		udp.SetNetworkLayerForChecksum(ip)
		return append(stack, udp,
			gopacket.Payload(binary.BigEndian.AppendUint16([]byte("\x08\x00\x00\x00\x00\x00\x09\x00\x02\x00\x00\x00\x00\x04\x02\x00\x00\x00\x00\x03"), uint16(etherType(s.v6)))))
	}
	proto := layers.IPProtocolIPv4
	if s.v6 {
		proto = layers.IPProtocolIPv6
	}
	_, stack := s.network(s.outerV6, false, proto, number)
	return stack
}

// virtio is the header in front of the merged frame.
func (s *shape) virtio(frame []byte) Header {
	b := make([]byte, HeaderLen)
	b[0] = needsSum
	b[1] = kindUDP
	place := 6
	if s.tcp {
		b[1], place = kindTCPv4, 16
		if s.v6 {
			b[1] = kindTCPv6
		}
	}
	if s.cwr {
		b[1] |= kindECN
	}
	order := binary.NativeEndian
	order.PutUint16(b[4:], uint16(s.size))
	order.PutUint16(b[6:], uint16(len(frame)-s.upperSize))
	order.PutUint16(b[8:], uint16(place))
	if s.unsummed {
		clear(b[6:])
		b[0] = 0
	}
	return Parse(b)
}

// What a Cutter makes of a merged frame is, byte for byte, what gopacket makes of each piece by itself,
// and the payloads behind each other are the one of the merged frame. ESP in UDP over IPv4, but not IKE, may
// be to go without a checksum.
func TestCutAgainstGopacket(t *testing.T) {
	var c Cutter
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		count := rapid.IntRange(1, min(40, 60000/s.size)).Draw(t, "pieces")
		stream := make([]byte, (count-1)*s.size+rapid.IntRange(1, s.size).Draw(t, "last"))
		for i := range stream {
			stream[i] = byte(i * 7)
		}
		ike := stream[rapid.IntRange(0, count-1).Draw(t, "IKE")*s.size:]
		clear(ike[:min(4, len(ike))])
		c.Sealed = rapid.Bool().Draw(t, "sealed")
		merged := s.build(t, stream, 0, true)
		h := s.virtio(merged)
		merged = append(merged, make([]byte, rapid.IntRange(0, 6).Draw(t, "behind"))...)
		if !c.Begin(h, merged) {
			t.Fatalf("refused: %+v", s)
		}
		var again []byte
		for i := range count {
			part := stream[i*s.size : min(len(stream), (i+1)*s.size)]
			alone := *s
			alone.unsummed = s.unsummed || c.Sealed && !s.tcp && !s.v6 && s.tunnel == "" && len(part) > 4 && !bytes.HasPrefix(part, []byte(spis0))
			want := alone.build(t, part, i, i == count-1)
			if c.Len() != len(want) {
				t.Fatalf("piece %d of %d: %d bytes, want %d", i, count, c.Len(), len(want))
			}
			got := c.Append(nil)
			if !bytes.Equal(got, want) {
				t.Fatalf("piece %d of %d:\n%x\n%x", i, count, got[:min(len(got), 200)], want[:min(len(want), 200)])
			}
			again = append(again, got[len(got)-len(part):]...)
		}
		if c.Len() != 0 || !bytes.Equal(again, stream) {
			t.Fatalf("%d bytes left, %d of %d bytes", c.Len(), len(again), len(stream))
		}
	})
}

// A steady flow of merged frames allocates nothing.
func TestCutAllocatesNothing(t *testing.T) {
	s := &shape{tcp: true, tags: []uint16{0x8100}, size: 1000}
	merged := s.build(t, make([]byte, 20500), 0, true)
	h := s.virtio(merged)
	var c Cutter
	slot := make([]byte, 2000)
	if n := testing.AllocsPerRun(10, func() {
		c.Begin(h, merged)
		for c.Len() > 0 {
			c.Append(slot[:0])
		}
	}); n != 0 {
		t.Errorf("%v allocations for a merged frame", n)
	}
}

// BenchmarkCut cuts 45 segments, and says what one takes.
func BenchmarkCut(b *testing.B) {
	const pieces = 45
	s := &shape{tcp: true, size: 1400}
	merged := s.build(b, make([]byte, pieces*s.size), 0, true)
	h := s.virtio(merged)
	var c Cutter
	slot := make([]byte, 2000)
	for b.Loop() {
		c.Begin(h, merged)
		for c.Len() > 0 {
			c.Append(slot[:0])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*pieces), "ns/piece")
}

// From whatever header and frame, a Cutter makes pieces that hold all of the payload it found, or none.
func FuzzCut(f *testing.F) {
	for _, s := range []*shape{{tcp: true, size: 100}, {v6: true, size: 100}, {tcp: true, extended: true, tags: []uint16{0x8100}, size: 100},
		{tcp: true, tunnel: "vxlan", size: 100}, {v6: true, tcp: true, tunnel: "gre", size: 100}, {tunnel: "ip", outerV6: true, size: 100}} {
		merged := s.build(f, make([]byte, 250), 0, true)
		h := s.virtio(merged)
		f.Add(h.flags, h.kind, uint16(h.size), uint16(h.start), uint16(h.place), merged)
	}
	f.Fuzz(func(t *testing.T, flags, kind uint8, size, start, place uint16, frame []byte) {
		h := Header{flags: flags, kind: kind, size: int(size), start: int(start), place: int(place)}
		h.Finish(bytes.Clone(frame))
		var c Cutter
		if !c.Begin(h, frame) {
			if c.Len() != 0 {
				t.Fatal("refused, and something to cut")
			}
			return
		}
		payload := bytes.Clone(c.frame[c.head:])
		var again []byte
		for c.Len() > 0 {
			piece := c.Append(nil)
			if len(piece) > len(frame) || len(piece) <= c.head {
				t.Fatalf("a piece of %d bytes of a frame of %d with headers of %d", len(piece), len(frame), c.head)
			}
			again = append(again, piece[c.head:]...)
		}
		if !bytes.Equal(payload, again) {
			t.Fatal("another payload")
		}
	})
}
