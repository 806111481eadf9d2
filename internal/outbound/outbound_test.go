package outbound

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/wire"
)

// What the Sender seals the receive side opens, in every mode, bundle and nesting
// of both IP versions: contract rows 5, 6, 11, 18 and 33. SAs are derived, but
// where Use is given.
func TestOpens(t *testing.T) {
	for _, v := range []int{4, 6} {
		for _, w := range []int{4, 6} {
			cbcIn := with(siteCBC(w), func(a *sa.SA) { a.Dst, a.Src = hosts[v][1], hosts[v][0]; a.Mode = sa.Transport })
			for _, c := range []struct {
				name     string
				portions int
				sas      []*sa.SA
				use      []string
			}{
				{"clear", 0, nil, nil},
				{"tunnel", 1, []*sa.SA{site(w)}, nil},
				{"transport", 1, []*sa.SA{web(v)}, nil},
				{"nested", 2, []*sa.SA{web(v), site(w)}, nil},
				{"AH tunnel", 1, []*sa.SA{siteAH(w)}, nil},
				{"AH transport", 1, []*sa.SA{webAH(v)}, nil},
				{"AH in ESP", 2, []*sa.SA{webAH(v), site(w)}, nil},
				{"bundled transport", 1, []*sa.SA{web(v), with(webAH(v), over("web"))}, nil},
				{"bundled tunnel", 1, []*sa.SA{siteCBC(w), with(siteAH(w), over("site-cbc"))}, nil},
				{"bundle in bundle", 2, []*sa.SA{web(v), with(webAH(v), over("web")), siteCBC(w), with(siteAH(w), over("site-cbc"))}, nil},
				{"AH over ESP as Linux makes it", 1, []*sa.SA{web(v), webAH(v)}, []string{"web", "web-ah"}},
				{"UDP transport", 1, []*sa.SA{with(web(v), encap)}, nil},
				{"UDP to a client behind a NAT", 1, []*sa.SA{with(web(v), behindNAT)}, nil},
				{"UDP tunnel", 1, []*sa.SA{with(site(w), encap)}, nil},
				{"transport in UDP tunnel", 2, []*sa.SA{web(v), with(site(w), encap)}, nil},
				{"UDP transport in tunnel", 2, []*sa.SA{with(web(v), encap), site(w)}, nil},
				{"ESN", 2, []*sa.SA{with(webAH(v), esn), with(siteCBC(w), esn)}, nil},
				{"CBC", 1, []*sa.SA{cbcIn}, nil},
			} {
				t.Run(fmt.Sprintf("%s, IPv%d and %d", c.name, v, w), func(t *testing.T) {
					config := Config{SAs: c.sas}
					if c.use != nil {
						config.Use = [][]string{c.use}
					}
					s, r := newSender(t, config), receiver(t, c.sas...)
					for range 3 {
						frame := udp(v, 100, 0x8100_0064, 0x88a8_0007)
						sent := send(s, frame)
						if len(sent) != 1 {
							t.Fatalf("sent %d frames:%s", len(sent), counts(s))
						}
						if opened, _ := open(t, r, sent[0], c.portions); !bytes.Equal(carried(t, opened), frame) {
							t.Fatalf("opened\n%x, sent\n%x", opened, frame)
						}
					}
				})
			}
		}
	}
}

// What keeps the link alive and what is no IP passes untouched, whatever the
// policy and the SAs; what cannot be judged does not.
func TestClear(t *testing.T) {
	s := newSender(t, Config{SAs: []*sa.SA{site(4), site6()}, Policy: []sa.Policy{{Action: sa.Protect}}})
	v6 := func(change func(ip []byte)) []byte {
		return edited(forge.AppendFrame(nil, forge.Echo(nil, hosts[6][0], hosts[6][1], 1, 1, nil)), change)
	}
	solicit := func(kind, hops byte) []byte { return v6(func(ip []byte) { ip[40], ip[7] = kind, hops }) }
	to := func(v int, addr string) []byte {
		at := map[int]int{4: 16, 6: 24}[v]
		return edited(udp(v, 10), func(ip []byte) { copy(ip[at:], netip.MustParseAddr(addr).AsSlice()) })
	}
	arp := append(forge.AppendFrame(nil, []byte{0x45})[:12], 8, 6, 0, 1)
	short := udp(4, 100)
	for _, c := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"ARP", arp, NotIP},
		{"IPv6 router solicitation", solicit(133, 255), Link},
		{"neighbour advertisement", solicit(136, 255), Link},
		{"redirect", solicit(137, 255), Link},
		{"a forwarded solicitation", solicit(135, 254), Sealed},
		{"echo request", solicit(128, 255), Sealed},
		{"ICMPv6 node query", solicit(139, 255), Sealed},
		{"multicast", to(4, "224.0.0.251"), Link},
		{"broadcast", to(4, "255.255.255.255"), Link},
		{"link-local", to(4, "169.254.1.1"), Link},
		{"multicast of IPv6", to(6, "ff02::fb"), Link},
		{"link-local of IPv6", to(6, "fe80::1"), Link},
		{"from link-local", edited(udp(4, 10), func(ip []byte) { ip[12], ip[13] = 169, 254 }), Link},
		{"unicast", to(4, "198.51.100.1"), Sealed},

		{"nothing", nil, Hidden},
		{"13 bytes", short[:13], Hidden},
		{"three tags", udp(4, 10, 0x8100_0001, 0x8100_0002, 0x8100_0003), Hidden},
		{"PPPoE", append(slices.Clone(arp[:12]), 0x88, 0x64, 0x11, 0), Hidden},
		{"MPLS", append(slices.Clone(arp[:12]), 0x88, 0x47, 0, 0), Hidden},
		{"cut short", short[:len(short)-1], Malformed},
		{"IPv4 announced as IPv6", append(append(slices.Clone(short[:12]), 0x86, 0xdd), short[14:]...), Malformed},
		{"a header length of 16", edited(udp(4, 10), func(ip []byte) { ip[0] = 0x44 }), Malformed},
		{"a jumbogram", v6(func(ip []byte) { ip[4], ip[5] = 0, 0 }), Malformed},
	} {
		before, was := s.Counts(), bytes.Clone(c.frame)
		sent := s.Batch([][]byte{c.frame})
		after := s.Counts()
		if after[c.want] != before[c.want]+1 || sum(after) != sum(before)+1 {
			t.Errorf("%s: counted%s, want one %s more", c.name, counts(s), c.want)
		}
		switch {
		case c.want.Dropped() != (len(sent) == 0):
			t.Errorf("%s: %d frames sent", c.name, len(sent))
		case c.want != Sealed && len(sent) > 0 && !bytes.Equal(sent[0], was):
			t.Errorf("%s: changed", c.name)
		case c.want == Sealed && bytes.Contains(sent[0], was[14:]):
			t.Errorf("%s: not sealed", c.name)
		}
	}
}

func site6() *sa.SA {
	return with(site(6), func(a *sa.SA) {
		a.Name, a.SPI, a.Selector = "site6", 0x301, &sa.Selector{Src: netip.MustParsePrefix("::/0")}
	})
}

func sum(c [NumReasons]uint64) (n uint64) {
	for _, r := range c {
		n += r
	}
	return n
}

// Frames keep their order, whatever becomes of each, and each of a batch stands
// until the next.
func TestOrder(t *testing.T) {
	s := newSender(t, Config{SAs: []*sa.SA{site(4)}, Policy: []sa.Policy{
		{Match: sa.Selector{DstPorts: sa.Ports{First: 1, Last: 1}}, Action: sa.Bypass},
		{Match: sa.Selector{DstPorts: sa.Ports{First: 2, Last: 2}}, Action: sa.Discard},
	}})
	r := receiver(t, site(4))
	var batch [][]byte
	for i := range 64 {
		batch = append(batch, edited(sized(4, 1300+i*3), func(ip []byte) { be.PutUint16(ip[4:], uint16(i)); ip[23] = byte(i % 4); ip[22] = 0 }))
	}
	var ids []int
	stage := reassembler()
	for _, f := range stage.Batch(s.Batch(batch)) {
		n := 1
		if f[23] == wire.ProtoUDP {
			n = 0
		}
		opened, _ := open(t, r, f, n)
		ids = append(ids, int(be.Uint16(opened[18:])))
	}
	if len(ids) != 48 || !slices.IsSorted(ids) {
		t.Errorf("sent %v", ids)
	}
	if got := counts(s); got != " sealed:25 fragmented:7 bypassed:16 discarded:16 fragments:14" {
		t.Errorf("counted%s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	noSource := with(site(4), func(a *sa.SA) { a.Src = netip.Addr{} })
	bundled := with(siteAH(4), over("site"))
	for _, c := range []struct {
		want string
		c    Config
	}{
		{"outbound: the wire's MTU must be 576 to 65535 bytes", Config{MTU: 575}},
		{"outbound: the wire's MTU must be 576 to 65535 bytes", Config{MTU: 65536}},
		{"outbound: site (esp tunnel, SPI 0x00000201, to 192.0.2.2) is there twice", Config{SAs: []*sa.SA{site(4), site(4)}}},
		{"outbound: web (esp tunnel, SPI 0x00000201, to 192.0.2.2) is there twice",
			Config{SAs: []*sa.SA{web(4), with(site(4), func(a *sa.SA) { a.Name = "web" })}}},
		{"outbound: spare (esp tunnel, SPI 0x00000201, to 192.0.2.2) is there twice",
			Config{SAs: []*sa.SA{site(4), with(site(4), func(a *sa.SA) { a.Name = "spare" })}}},
		{"outbound: site: a tunnel needs src and dst for its outer header", Config{SAs: []*sa.SA{noSource}}},
		{"outbound: site: a tunnel needs src and dst for its outer header", Config{SAs: []*sa.SA{noSource}, Local: []netip.Addr{hosts[6][0]}}},
		{"outbound: site-ah: bundle: expected an SA site that no other one names", Config{SAs: []*sa.SA{bundled}}},
		{"outbound: other: bundle: expected an SA site that no other one names",
			Config{SAs: []*sa.SA{site(4), bundled, with(newSA("other", 9, sa.AH, sa.Tunnel, hmac, gateways[4]), over("site"))}}},
		{"outbound: site-ah: expected the SA web beneath it, in the same mode", Config{SAs: []*sa.SA{web(4), with(siteAH(4), over("web"))}}},
		{`outbound: use: there is no outbound SA "nobody"`, Config{SAs: []*sa.SA{site(4)}, Use: [][]string{{"site"}, {"nobody"}}}},
		{"outbound: use: site is there twice in one stack", Config{SAs: []*sa.SA{site(4)}, Use: [][]string{{"site", "site"}}}},
		{"outbound: use: site-ah is there twice in one stack", Config{SAs: []*sa.SA{site(4), bundled, web(4)}, Use: [][]string{{"site", "web", "site-ah"}}}},
		{"outbound: use: a stack needs an SA", Config{Use: [][]string{{}}}},
		{"outbound: first sequence number: site has no ESN, expected 32 bits", Config{SAs: []*sa.SA{site(4)}, First: 1 << 32}},
	} {
		if c.c.MTU == 0 {
			c.c.MTU = 1500
		}
		if s, err := New(c.c); err == nil || err.Error() != c.want || s != nil {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// A tunnel without src is sent from the first of our addresses that can.
func TestSource(t *testing.T) {
	local := []netip.Addr{hosts[6][0], gateways[4][0], hosts[4][0]}
	s := newSender(t, Config{SAs: []*sa.SA{with(site(4), func(a *sa.SA) { a.Src = netip.Addr{} })}, Local: local})
	open(t, receiver(t, site(4)), send(s, udp(4, 10))[0], 1)
}

// Every reason has a name of its own and a sentence.
func TestReasons(t *testing.T) {
	names := map[string]bool{}
	for r := range Reason(NumReasons) {
		if r.String() == "" || r.Sentence() == "" || names[r.String()] {
			t.Errorf("reason %d: %q, %q", r, r, r.Sentence())
		}
		names[r.String()] = true
		if text := r.Sentence(); r.Dropped() != strings.HasPrefix(text, "dropped: ") {
			t.Errorf("%s: %s", r, text)
		}
	}
	if got := Reason(200).String() + Reason(200).Sentence(); got != "reason-200reason 200, which this version does not know" {
		t.Error(got)
	}
}

// A packet that was sealed stays as it is, where another stack with its SA seals the next one behind it.
func TestSealBehind(t *testing.T) {
	s, err := NewSealer(nil, web(4), site(4))
	if err != nil {
		t.Fatal(err)
	}
	alone, both := s.Stack(0), s.Stack(0, 1)
	packet := forge.UDP(nil, netip.MustParseAddrPort("10.1.0.1:1"), netip.MustParseAddrPort("10.2.0.1:2"), make([]byte, 200))
	for _, room := range []int{0, 300, 4096} {
		var all []byte
		var parts [][]byte
		buf := make([]byte, 0, room)
		for i := range 6 {
			stack := alone
			if i%2 == 1 {
				stack = both
			}
			start := len(buf)
			if buf, err = stack.Seal(buf, packet); err != nil {
				t.Fatal(err)
			}
			parts = append(parts, buf[start:])
			all = append(all, buf[start:]...)
		}
		if !bytes.Equal(buf, all) || !bytes.Equal(bytes.Join(parts, nil), all) {
			t.Errorf("with room for %d bytes a packet has changed", room)
		}
	}
}
