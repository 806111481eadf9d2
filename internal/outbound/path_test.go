package outbound

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// routers are on the way to the hosts and gateways.
var routers = map[int]netip.Addr{4: netip.MustParseAddr("198.51.100.1"), 6: netip.MustParseAddr("2001:db8:ffff::1")}

// tooBig is a router's report about a frame, which quotes so much of its packet.
func tooBig(t testing.TB, frame []byte, mtu, quote int) []byte {
	t.Helper()
	_, l3, _ := wire.Ethernet(frame)
	p, ok := wire.Addresses(frame, l3)
	if !ok {
		t.Fatalf("no IP packet: %x", frame)
	}
	router := net.IP(routers[int(p.Version)].AsSlice())
	ether := &layers.Ethernet{SrcMAC: frame[:6], DstMAC: frame[6:12], EthernetType: layers.EthernetTypeIPv4}
	quoted := gopacket.Payload(frame[l3:min(l3+quote, p.End)])
	var packet []gopacket.SerializableLayer
	if p.Version == 4 {
		ip := &layers.IPv4{Version: 4, TTL: 60, Protocol: layers.IPProtocolICMPv4, SrcIP: router, DstIP: p.Src.AsSlice()}
		icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: uint16(mtu)}
		packet = []gopacket.SerializableLayer{ether, ip, icmp, quoted}
	} else {
		ether.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolICMPv6, SrcIP: router, DstIP: p.Src.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		packet = []gopacket.SerializableLayer{ether, ip, icmp, gopacket.Payload(binary.BigEndian.AppendUint32(nil, uint32(mtu))), quoted}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, packet...); err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(buf.Bytes()), "Ethernet padding, or a trailer"...)
}

// A router's report about a packet shortens the path of the SA that made it, the
// outermost one: the next packet that is too long is told what room is left, or cut
// so that its pieces go through (RFC 4301 section 8.2).
func TestReported(t *testing.T) {
	const path = 1330
	for name, sas := range map[string]func(inner, outer int) []*sa.SA{
		"tunnel":     func(_, outer int) []*sa.SA { return []*sa.SA{site(outer)} },
		"AH":         func(_, outer int) []*sa.SA { return []*sa.SA{siteAH(outer)} },
		"UDP tunnel": func(_, outer int) []*sa.SA { return []*sa.SA{with(site(outer), encap)} },
		"NAT":        func(_, outer int) []*sa.SA { return []*sa.SA{with(site(outer), behindNAT)} },
		"bundle":     func(_, outer int) []*sa.SA { return []*sa.SA{siteCBC(outer), with(siteAH(outer), over("site-cbc"))} },
		"nested":     func(inner, outer int) []*sa.SA { return []*sa.SA{web(inner), site(outer)} },
		"transport":  func(inner, _ int) []*sa.SA { return []*sa.SA{web(inner)} },
		"ESN":        func(_, outer int) []*sa.SA { return []*sa.SA{with(site(outer), esn)} },
	} {
		for _, v := range [][2]int{{4, 4}, {4, 6}, {6, 4}, {6, 6}} {
			t.Run(fmt.Sprintf("%s, %d in %d", name, v[0], v[1]), func(t *testing.T) {
				var a answered
				var events []Event
				s := newSender(t, Config{SAs: sas(v[0], v[1]), Reply: a.reply, Joined: true, Audit: func(e Event) {
					if e.Reason == Narrowed {
						events = append(events, e)
					}
				}})
				sent := send(s, tellable(v[0], 1350))
				if len(sent) != 1 {
					t.Fatalf("not sent:%s", counts(s))
				}
				s.Heed(tooBig(t, sent[0], path, 100))
				if len(events) != 1 || events[0].MTU != path || !events[0].Router.IsValid() || events[0].SPI == 0 || events[0].Number != 1 {
					t.Fatalf("told of %+v:%s", events, counts(s))
				}
				frame := tellable(v[0], 1350)
				if sent = send(s, frame); len(sent) != 0 || len(a.frames) != 1 {
					t.Fatalf("sent %d frames, %d answers:%s", len(sent), len(a.frames), counts(s))
				}
				fits := told(t, a.frames[0], frame)
				if v[0] == 6 && fits == leastIPv6 {
					fits = 1200 // what is asked of IPv6 at least may have to be cut
				}
				if sent = send(s, tellable(v[0], fits)); len(sent) != 1 || len(sent[0]) > 22+path || len(sent[0]) < 22+path-90 {
					t.Errorf("told of %d bytes, sent %d frames", fits, len(sent))
				}
				if v[0] == 4 {
					sent = send(s, sized(4, 1350))
					if len(sent) != 2 || len(sent[0]) > 14+path || len(sent[1]) > 14+path {
						t.Errorf("of a packet without DF %d frames came:%s", len(sent), counts(s))
					}
				}
			})
		}
	}
}

// IPv6 takes 1280 bytes anywhere. What they are once they are sealed goes over a
// path of 1280 in pieces.
func TestLeastPath(t *testing.T) {
	for _, outer := range []int{4, 6} {
		s := newSender(t, Config{SAs: []*sa.SA{site(outer)}})
		s.Heed(tooBig(t, send(s, sized(6, 1280))[0], 1280, 100))
		if sent := send(s, sized(6, 1280)); len(sent) != 2 || len(sent[0]) > 14+1280 {
			t.Errorf("IPv%d around it: %d frames:%s", outer, len(sent), counts(s))
		}
	}
}

// What nobody signs is not believed without the SPI of ours and a number that was
// sent a moment ago, nor beyond what can be (RFC 4301 section 8.2.1, RFC 8201
// section 4, RFC 5927 section 7).
func TestForgedReports(t *testing.T) {
	for _, c := range []struct {
		name  string
		mtu   int
		quote int
		first uint64
		forge func(sealed []byte, at int) // at is ESP's header
		whole func(report []byte)
	}{
		{name: "another SPI", forge: func(f []byte, at int) { f[at+3] ^= 1 }},
		{name: "a number that was never sent", forge: func(f []byte, at int) { be.PutUint32(f[at+4:], recentNumbers+11) }},
		{name: "the number 0", forge: func(f []byte, at int) { be.PutUint32(f[at+4:], 0) }},
		{name: "a number before the first", first: 1, forge: func(f []byte, at int) { be.PutUint32(f[at+4:], 0xfffffffe) }},
		{name: "a number of long ago", forge: func(f []byte, at int) { be.PutUint32(f[at+4:], 10) }},
		{name: "another destination", forge: func(f []byte, at int) { f[at-1] ^= 1 }},
		{name: "another source", forge: func(f []byte, at int) { f[at-map[bool]int{true: 5, false: 17}[f[14]>>4 == 4]] ^= 1 }},
		{name: "AH", forge: func(f []byte, at int) {
			f[at-map[bool]int{true: 11, false: 34}[f[14]>>4 == 4]] = wire.ProtoAH
			copy(f[at+4:], bytes.Clone(f[at:at+8]))
		}},
		{name: "ESP in UDP", forge: func(f []byte, at int) {
			f[at-map[bool]int{true: 11, false: 34}[f[14]>>4 == 4]] = wire.ProtoUDP
			copy(f[at+8:], bytes.Clone(f[at:at+8]))
			copy(f[at:], []byte{4500 >> 8, 4500 & 255, 4500 >> 8, 4500 & 255, 0, 99, 0, 0})
		}},
		{name: "below the least", mtu: 551},
		{name: "0", mtu: -1},
		{name: "as long as the wire takes", mtu: 1500},
		{name: "too little quoted", quote: 20 + 7},
		{name: "a wrong checksum", whole: func(r []byte) { r[60] ^= 1 }},
		{name: "a header with a wrong checksum", whole: func(r []byte) { r[14+5] ^= 1 }}, // of IPv6, the payload's length
		{name: "a report to somebody else", whole: func(r []byte) { edited(r, func(ip []byte) { ip[19] ^= 1 }) }},
		{name: "another type", whole: func(r []byte) { r[14+20+map[bool]int{false: 20}[r[14]>>4 == 4]]++ }},
		{name: "cut short", whole: func(r []byte) { be.PutUint16(r[14+map[bool]int{true: 2, false: 4}[r[14]>>4 == 4]:], 0xff00) }},
	} {
		for _, v := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s, IPv%d", c.name, v), func(t *testing.T) {
				s := newSender(t, Config{SAs: []*sa.SA{site(v)}, First: cmp.Or(c.first, recentNumbers+10), Audit: func(e Event) { t.Errorf("told of %+v", e) }})
				sealed := send(s, sized(v, 1400))[0]
				mtu, quote := 1300, 100
				if c.mtu != 0 {
					mtu = max(c.mtu, 0)
				}
				if v == 6 && mtu == 551 {
					mtu = 1279
				}
				if c.quote != 0 {
					quote = c.quote + map[int]int{6: 20}[v]
				}
				quoted := bytes.Clone(sealed)
				if c.forge != nil {
					c.forge(quoted, 14+map[int]int{4: 20, 6: 40}[v])
				}
				report := tooBig(t, quoted, mtu, quote)
				if c.whole != nil {
					c.whole(report)
				}
				s.Heed(report)
				if s.Counts()[Narrowed] != 0 || len(send(s, sized(v, 1400))) != 1 {
					t.Errorf("believed:%s", counts(s))
				}
				if refused := s.Counts()[Unbelieved] == 1; refused != (c.whole == nil && c.quote == 0) {
					t.Errorf("counted:%s", counts(s)) // what is no whole report is none
				}
			})
		}
	}
}

// Contract, The sending side, steps 3 and 4: of the last 131072 packets, and down to 552
// bytes or in IPv6 1280.
func TestReportBounds(t *testing.T) {
	for _, c := range []struct {
		v, mtu   int
		number   uint32
		believed uint64
	}{
		{4, 552, 1000_000, 1}, {4, 551, 1000_000, 0}, {6, 1280, 1000_000, 1}, {6, 1279, 1000_000, 0},
		{4, 1300, 1000_000 - 131071, 1}, {4, 1300, 1000_000 - 131072, 0}, {4, 1300, 1000_001, 0},
	} {
		s := newSender(t, Config{SAs: []*sa.SA{site(c.v)}, First: 1000_000})
		quoted := send(s, sized(c.v, 1400))[0]
		be.PutUint32(quoted[14+map[int]int{4: 20, 6: 40}[c.v]+4:], c.number)
		s.Heed(tooBig(t, quoted, c.mtu, 100))
		if n := s.Counts(); n[Narrowed] != c.believed || n[Unbelieved] != 1-c.believed {
			t.Errorf("%+v: counted%s", c, counts(s))
		}
	}
}

// The eight bytes that a router must quote after the IP header (RFC 792) are enough for
// ESP alone.
func TestQuoted(t *testing.T) {
	for _, v := range []int{4, 6} {
		for _, c := range []struct {
			a     *sa.SA
			needs int
		}{{site(v), 8}, {siteAH(v), 12}, {with(site(v), encap), 16}} {
			s := newSender(t, Config{SAs: []*sa.SA{c.a}})
			sealed := send(s, sized(v, 1400))[0]
			enough := map[int]int{4: 20, 6: 40}[v] + c.needs
			for quote := enough - c.needs; quote < enough; quote++ {
				s.Heed(tooBig(t, sealed, 1300, quote)[:14+enough-c.needs+8+quote])
			}
			s.Heed(tooBig(t, sized(v, 1400), 1300, 100)) // of a packet in clear, which is the stack's affair
			if n := s.Counts(); n[Narrowed]+n[Unbelieved] != 0 {
				t.Errorf("%s: read with less than %d bytes:%s", c.a, c.needs, counts(s))
			}
			if s.Heed(tooBig(t, sealed, 1300, enough)); s.Counts()[Narrowed] != 1 {
				t.Errorf("%s: not believed:%s", c.a, counts(s))
			}
		}
	}
}

// A report holds for ten minutes, through reloads, also one that drops the SA for a
// while, and a later one only makes the path narrower. It is said once.
func TestPathHolds(t *testing.T) {
	var now time.Duration
	l := ledger.New()
	l.Clock = func() time.Duration { return now }
	said := 0
	first := site(4)
	config := Config{SAs: []*sa.SA{first}, MTU: 1500, Ledger: l, Audit: func(Event) { said++ }}
	s := newSender(t, config)
	fits := func(want int, when string) {
		t.Helper()
		before := s.Counts()
		n, more := len(send(s, sized(4, want))), len(send(s, sized(4, want+1)))
		if after := s.Counts(); n != 1 || more != 2 || after[Fragmented] != before[Fragmented]+1 {
			t.Errorf("%s: expected to fit %d bytes:%s", when, want, counts(s))
		}
	}
	sealed := send(s, sized(4, 1400))[0]
	s.Heed(tooBig(t, sealed, 1400, 100))
	fits(1346, "reported")
	s.Heed(tooBig(t, sealed, 1450, 100))
	fits(1346, "reported wider")
	s.Heed(tooBig(t, sealed, 1300, 100))
	fits(1246, "reported narrower")
	if _, err := s.Delete([]*sa.SA{first}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add([]*sa.SA{site(4)}, nil); err != nil {
		t.Fatal(err)
	}
	fits(1246, "deleted and added")
	for _, sas := range [][]*sa.SA{{site(4)}, nil, {site(4), web(6)}} {
		config.SAs = sas
		if err := s.Replace(config); err != nil {
			t.Fatal(err)
		}
	}
	fits(1246, "reloaded")
	now += 10*time.Minute - time.Second
	s.Tick()
	fits(1246, "not long ago")
	now += time.Second
	s.Tick()
	fits(1446, "ten minutes later")
	if err := s.Replace(config); err != nil {
		t.Fatal(err)
	}
	s.Heed(tooBig(t, sealed, 1400, 100))
	fits(1346, "reported anew")
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

// Frames from anywhere: no panic, they stay as they are, and what is believed names
// an SA that has sent, and shortens its path to no less than any path takes.
func FuzzHeed(f *testing.F) {
	for _, v := range []int{4, 6} {
		s := newSender(f, Config{SAs: []*sa.SA{site(v)}})
		sealed := send(s, sized(v, 1400))[0]
		f.Add(tooBig(f, sealed, 1300, 100))
		f.Add(tooBig(f, sealed, 1300, 30))
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, change := range []func(*sa.SA){func(*sa.SA) {}, encap} {
			for v, least := range map[int]int{4: leastPath4, 6: leastIPv6} {
				var events []Event
				a := with(site(v), change)
				s := newSender(t, Config{SAs: []*sa.SA{a}, Audit: func(e Event) { events = append(events, e) }})
				before := bytes.Clone(frame)
				if s.Heed(frame); len(events) != 0 {
					t.Errorf("believed before anything was sent: %x", frame)
				}
				send(s, sized(v, 1400))
				if s.Heed(frame); !bytes.Equal(frame, before) {
					t.Errorf("%x became %x", before, frame)
				}
				for _, e := range events {
					if e.MTU < least || e.MTU >= 1500 || !bytes.Contains(frame, be.AppendUint64(nil, uint64(a.SPI)<<32|1)) {
						t.Errorf("%+v of %x", e, frame)
					}
				}
			}
		}
	})
}

// BenchmarkHeed is what looking at a frame costs that is no report.
func BenchmarkHeed(b *testing.B) {
	s := newSender(b, Config{SAs: []*sa.SA{site(4)}})
	sealed := send(s, sized(4, 1400))[0]
	b.ReportAllocs()
	for b.Loop() {
		s.Heed(sealed)
	}
}
