package outbound

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/wire"
)

// way describes what a Sender does with a frame: the reason, or its SAs,
// innermost first.
func way(s *Sender, frame []byte) string {
	_, l3, _ := wire.Ethernet(frame)
	p, _ := wire.Addresses(frame, l3)
	f := wire.FlowOf(frame, &p)
	r := s.resolve(f)
	if r.fate != Sealed {
		return r.fate.String()
	}
	name := ""
	if rule := sa.FirstFor(s.config.Policy, &f); rule != nil {
		name = rule.SA
	}
	var names []string
	for _, p := range s.sas.choose(f, name) {
		for _, a := range p.sas {
			names = append(names, a.Name)
		}
	}
	return strings.Join(names, " ")
}

// to is a frame from the first IPv4 host to an address and port.
func to(addr string, port uint16) []byte {
	from, to := netip.AddrPortFrom(hosts[4][0], 7), netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	return forge.AppendFrame(nil, forge.UDP(nil, from, to, make([]byte, 64)))
}

func fragmentOf(frame []byte, offset uint16) []byte {
	return edited(frame, func(ip []byte) { be.PutUint16(ip[6:], moreFragments|offset) })
}

func selecting(s sa.Selector) func(*sa.SA) { return func(a *sa.SA) { a.Selector = &s } }

func named(name string, spi uint32) func(*sa.SA) {
	return func(a *sa.SA) { a.Name, a.SPI = name, spi }
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func port(n uint16) sa.Ports { return sa.Ports{First: n, Last: n} }

// Without Use: the transport SA of the destination, in the tunnel that may carry
// what came of it, the newest of several. Each selector is held against what its
// SA is applied to (RFC 4301 section 5.2).
func TestDerive(t *testing.T) {
	lan := selecting(sa.Selector{Dst: prefix("10.0.0.0/24")})
	udpOnly := selecting(sa.Selector{Protocol: wire.ProtoUDP})
	espOnly := selecting(sa.Selector{Protocol: wire.ProtoESP})
	dns := selecting(sa.Selector{DstPorts: port(53)})
	natt := selecting(sa.Selector{Protocol: wire.ProtoUDP, DstPorts: port(4500)})
	peer, other := to("10.0.0.2", 80), to("10.9.9.9", 80)
	for _, c := range []struct {
		name  string
		sas   []*sa.SA
		frame []byte
		want  string
	}{
		{"no SA", nil, peer, "unprotected"},
		{"a tunnel takes everything", []*sa.SA{site(4)}, other, "site"},
		{"its selector matches", []*sa.SA{with(site(4), lan)}, peer, "site"},
		{"its selector does not", []*sa.SA{with(site(4), lan)}, other, "unprotected"},
		{"the transport SA's peer", []*sa.SA{web(4)}, peer, "web"},
		{"another destination", []*sa.SA{web(4)}, other, "unprotected"},
		{"another source", []*sa.SA{with(web(4), func(a *sa.SA) { a.Src = netip.MustParseAddr("10.0.0.9") })}, peer, "unprotected"},
		{"a transport SA without addresses", []*sa.SA{with(web(4), anywhere)}, other, "web"},
		{"nested", []*sa.SA{site(4), web(4)}, peer, "web site"},
		{"beside the nested one", []*sa.SA{site(4), web(4)}, other, "site"},
		{"the tunnel carries UDP only, and gets ESP", []*sa.SA{with(site(4), udpOnly), web(4)}, peer, "web"},
		{"the tunnel carries UDP only, and gets it", []*sa.SA{with(site(4), udpOnly), with(web(4), dns)}, peer, "site"},
		{"the tunnel carries ESP only", []*sa.SA{with(site(4), espOnly), web(4)}, peer, "web site"},
		{"the tunnel carries ESP only, and gets UDP", []*sa.SA{with(site(4), espOnly)}, peer, "unprotected"},
		{"the tunnel carries ESP in UDP", []*sa.SA{with(site(4), natt), with(web(4), encap)}, peer, "web site"},
		{"no transport SA for what a tunnel makes", []*sa.SA{site(4), with(web(4), func(a *sa.SA) { a.Src, a.Dst = gateways[4][0], gateways[4][1] })}, peer, "site"},
		{"a bundle", []*sa.SA{web(4), with(webAH(4), over("web"))}, peer, "web web-ah"},
		{"a selector of a bundle's AH is of the same packet", []*sa.SA{web(4), with(with(webAH(4), over("web")), udpOnly)}, peer, "web web-ah"},
		{"both of a bundle must match", []*sa.SA{with(web(4), dns), with(webAH(4), over("web"))}, peer, "unprotected"},
		{"of two the newest", []*sa.SA{site(4), with(site(4), named("site2", 9))}, peer, "site2"},
		{"unless it may not", []*sa.SA{site(4), with(with(site(4), named("site2", 9)), dns)}, peer, "site"},
		{"of AH and ESP the newest", []*sa.SA{webAH(4), web(4)}, peer, "web"},
		{"ports", []*sa.SA{with(site(4), dns)}, to("10.0.0.2", 53), "site"},
		{"other ports", []*sa.SA{with(site(4), dns)}, peer, "unprotected"},
		{"the first fragment shows its ports", []*sa.SA{with(site(4), dns)}, fragmentOf(to("10.0.0.2", 53), 0), "site"},
		{"a later fragment shows none", []*sa.SA{with(site(4), dns)}, fragmentOf(to("10.0.0.2", 53), 8), "no-sa"},
		{"and is of another protocol", []*sa.SA{with(site(4), selecting(sa.Selector{Protocol: wire.ProtoTCP, DstPorts: port(53)}))}, fragmentOf(to("10.0.0.2", 53), 8), "unprotected"},
		{"a later fragment to a transport SA's peer", []*sa.SA{with(web(4), dns)}, fragmentOf(to("10.0.0.2", 53), 8), "no-sa"},
		{"and to somebody else", []*sa.SA{with(web(4), dns)}, fragmentOf(to("10.0.0.9", 53), 8), "unprotected"},
		{"a later fragment needs none", []*sa.SA{with(site(4), lan)}, fragmentOf(to("10.0.0.2", 53), 8), "site"},
		{"IPv6 and a transport SA for IPv4", []*sa.SA{web(4)}, udp(6, 10), "unprotected"},
		{"IPv6 in a tunnel over IPv4", []*sa.SA{site(4)}, udp(6, 10), "site"},
	} {
		if got := way(newSender(t, Config{SAs: c.sas}), c.frame); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// The first rule that matches decides; where it wants protection nothing leaves
// in clear (RFC 4301 section 5.1).
func TestPolicy(t *testing.T) {
	sas := []*sa.SA{with(site(4), selecting(sa.Selector{Dst: prefix("10.0.0.0/16")})), web(4)}
	lan, dns := sa.Selector{Dst: prefix("10.0.0.0/16")}, sa.Selector{Protocol: wire.ProtoUDP, DstPorts: port(53)}
	peer, far := to("10.0.0.2", 80), to("198.51.100.1", 80)
	query := to("10.0.0.2", 53)
	later, cut := fragmentOf(to("10.0.0.2", 53), 8), edited(to("10.0.0.2", 53), func(ip []byte) { be.PutUint16(ip[2:], 22) })
	for _, c := range []struct {
		name   string
		policy []sa.Policy
		frame  []byte
		want   string
	}{
		{"no rule", nil, peer, "web site"},
		{"no rule and no SA", nil, far, "unprotected"},
		{"no rule matches", []sa.Policy{{Match: dns, Action: sa.Discard}}, peer, "web site"},
		{"bypass", []sa.Policy{{Match: lan, Action: sa.Bypass}}, peer, "bypassed"},
		{"discard", []sa.Policy{{Match: lan, Action: sa.Discard}}, peer, "discarded"},
		{"the first decides", []sa.Policy{{Match: dns, Action: sa.Bypass}, {Action: sa.Discard}}, query, "bypassed"},
		{"the first decides though another one is narrower", []sa.Policy{{Action: sa.Discard}, {Match: lan, Action: sa.Bypass}}, peer, "discarded"},
		{"the first decides though another one is wider", []sa.Policy{{Match: lan, Action: sa.Bypass}, {Action: sa.Discard}}, peer, "bypassed"},
		{"the second", []sa.Policy{{Match: dns, Action: sa.Bypass}, {Action: sa.Discard}}, peer, "discarded"},
		{"protect", []sa.Policy{{Action: sa.Protect}}, peer, "web site"},
		{"protect, and no SA", []sa.Policy{{Action: sa.Protect}}, far, "no-sa"},
		{"an action that is none", []sa.Policy{{}}, far, "no-sa"},
		{"protect by the tunnel", []sa.Policy{{Action: sa.Protect, SA: "site"}}, peer, "site"},
		{"protect by the transport SA", []sa.Policy{{Action: sa.Protect, SA: "web"}}, peer, "web"},
		{"protect by an SA that may not", []sa.Policy{{Action: sa.Protect, SA: "site"}}, far, "no-sa"},
		{"protect by an SA for what comes in", []sa.Policy{{Action: sa.Protect, SA: "inbound"}}, peer, "no-sa"},
		{"a later fragment may be meant by a rule that protects", []sa.Policy{{Match: dns, Action: sa.Protect, SA: "inbound"}}, later, "no-sa"},
		{"or that discards", []sa.Policy{{Match: dns, Action: sa.Discard}}, later, "discarded"},
		{"but must be by one that permits", []sa.Policy{{Match: dns, Action: sa.Bypass}}, later, "web site"},
		{"so is a packet too short for its ports", []sa.Policy{{Match: dns, Action: sa.Discard}}, cut, "discarded"},
	} {
		if got := way(newSender(t, Config{SAs: sas, Policy: c.policy}), c.frame); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// With Use: the first stack that may carry the packet, of a rule's name the first
// that contains it.
func TestUse(t *testing.T) {
	sas := []*sa.SA{web(4), webAH(4), with(site(4), selecting(sa.Selector{Dst: prefix("10.0.0.0/16")})),
		newSA("esp", 0x401, sa.ESP, sa.Tunnel, gcm, [2]netip.Addr{hosts[4][0], gateways[4][1]}),
		with(newSA("ah", 0x402, sa.AH, sa.Tunnel, hmac, [2]netip.Addr{hosts[4][0], gateways[4][1]}), over("esp")),
		newSA("hop", 0x403, sa.AH, sa.Transport, hmac, gateways[4])}
	peer, far := to("10.0.0.2", 80), to("198.51.100.1", 80)
	for _, c := range []struct {
		use   string // stacks, separated by commas
		rule  string // names an SA
		frame []byte
		want  string
	}{
		{"site", "", peer, "site"},
		{"site", "", far, "no-sa"},
		{"web", "", far, "no-sa"},
		{"site,web", "", peer, "site"},
		{"web,site", "", peer, "web"},
		{"web site,site", "", peer, "web site"},
		{"web web-ah", "", peer, "web web-ah"},
		{"web-ah web", "", peer, "web-ah web"},
		{"web,web site,site", "site", peer, "web site"},
		{"web,web site,site", "esp", peer, "no-sa"},
		{"esp", "", far, "esp ah"},
		{"ah", "", far, "esp ah"},
		{"esp ah", "", far, "esp ah"},
		{"esp", "ah", far, "esp ah"},
		{"site hop", "", peer, "site hop"},
		{"esp hop", "", peer, "no-sa"},
		{"site esp", "", peer, "site esp ah"},
	} {
		var use [][]string
		for k := range strings.SplitSeq(c.use, ",") {
			use = append(use, strings.Fields(k))
		}
		s := newSender(t, Config{SAs: sas, Use: use, Policy: []sa.Policy{{Action: sa.Protect, SA: c.rule}}})
		if got := way(s, c.frame); got != c.want {
			t.Errorf("%s for %q: %s, want %s", c.use, c.rule, got, c.want)
		}
		if got := way(newSender(t, Config{SAs: sas, Use: use}), far); c.want == "no-sa" && c.rule == "" && got != "unprotected" && got != c.want {
			t.Errorf("%s without policy: %s", c.use, got)
		}
	}
}

// A flow is resolved once, and the flows remembered are bounded.
func TestRoutes(t *testing.T) {
	s := newSender(t, Config{SAs: []*sa.SA{site(4)}})
	for i := range 3 * maxRoutes {
		port := uint16(i)
		send(s, to(fmt.Sprintf("10.0.%d.1", i>>13), port), to("10.0.0.2", 80))
		if len(s.routes.known) > maxRoutes {
			t.Fatalf("%d flows remembered", len(s.routes.known))
		}
	}
	if got := counts(s); got != fmt.Sprintf(" sealed:%d", 6*maxRoutes) {
		t.Errorf("counted%s", got)
	}
}

// What an SA or a rule protected that is no longer there, or what one will protect
// once its direction is known, does not leave in clear; a rule that says bypass
// lets it. A later fragment, whose ports nobody knows, is held back with the rest.
func TestHeldBack(t *testing.T) {
	ssh := sa.Selector{Protocol: wire.ProtoTCP, DstPorts: port(22)}
	for name, c := range map[string]struct {
		held []Held
		want string // of 10.0.0.2, of 10.0.0.9
	}{
		"nothing":                 {nil, "unprotected unprotected"},
		"transport mode":          {[]Held{HeldSA(web(4))}, "held-back unprotected"},
		"a tunnel":                {[]Held{HeldSA(site(4))}, "held-back held-back"},
		"a tunnel for something":  {[]Held{HeldSA(with(site(4), selecting(sa.Selector{Dst: prefix("10.0.0.9/32")})))}, "unprotected held-back"},
		"a tunnel for other port": {[]Held{HeldSA(with(site(4), selecting(ssh)))}, "unprotected unprotected"},
		"a rule":                  {[]Held{{Match: sa.Selector{Dst: prefix("10.0.0.2/32")}}}, "held-back unprotected"},
	} {
		s := newSender(t, Config{Held: c.held})
		if got := way(s, to("10.0.0.2", 80)) + " " + way(s, to("10.0.0.9", 80)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	bypass := []sa.Policy{{Match: sa.Selector{Dst: prefix("10.0.0.2/32")}, Action: sa.Bypass}}
	if got := way(newSender(t, Config{Held: []Held{HeldSA(site(4))}, Policy: bypass}), to("10.0.0.2", 80)); got != "bypassed" {
		t.Errorf("with a rule that says bypass: %s", got)
	}
	s := newSender(t, Config{Held: []Held{HeldSA(with(site(4), selecting(sa.Selector{Protocol: wire.ProtoUDP, DstPorts: port(22)})))}})
	if got := way(s, fragmentOf(to("10.0.0.2", 22), 8)); got != "held-back" {
		t.Errorf("a later fragment: %s", got)
	}
	if sent := send(s, to("10.0.0.2", 22)); len(sent) != 0 || s.Counts()[HeldBack] != 1 {
		t.Errorf("%d frames left, counted%s", len(sent), counts(s))
	}
}
