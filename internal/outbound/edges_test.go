package outbound

import (
	"net/netip"
	"testing"

	"tapsec/sa"
	"tapsec/wire"
)

// A tunnel without src gets the first of our addresses of its IP version, be it the first
// of all.
func TestSourceOfTunnel(t *testing.T) {
	nowhere := func(a *sa.SA) { a.Src = netip.Addr{} }
	for _, v := range []int{4, 6} {
		for _, local := range [][]netip.Addr{{gateways[v][0], gateways[10-v][0], hosts[v][0]}, {gateways[10-v][0], gateways[v][0], hosts[v][0]}} {
			s := newSender(t, Config{SAs: []*sa.SA{with(site(v), nowhere)}, Local: local})
			sent := send(s, udp(v, 10))
			if len(sent) != 1 {
				t.Fatalf("IPv%d: not sent:%s", v, counts(s))
			}
			if p, _ := wire.Addresses(sent[0], 14); p.Src != gateways[v][0] {
				t.Errorf("IPv%d of %v: from %s", v, local, p.Src)
			}
		}
	}
}

// What is told of an IPv6 packet has its flow label, and nothing of its traffic class.
func TestFlowLabel(t *testing.T) {
	var events []Event
	s := newSender(t, Config{Policy: []sa.Policy{{Action: sa.Discard}}, Audit: func(e Event) { events = append(events, e) }})
	send(s, edited(udp(6, 10), func(ip []byte) { be.PutUint32(ip, 0x6ff_edcba) }))
	if len(events) != 1 || events[0].FlowID != 0xedcba {
		t.Errorf("%+v", events)
	}
}

// A report about ESP in UDP is believed of the port of encapsulation alone.
func TestReportOfOtherUDP(t *testing.T) {
	for name, port := range map[string]uint16{"encapsulation": sa.EncapPort, "another": 53} {
		s := newSender(t, Config{SAs: []*sa.SA{with(site(4), encap)}})
		sealed := send(s, sized(4, 1400))[0]
		be.PutUint16(sealed[34:], port)
		be.PutUint16(sealed[36:], port)
		s.Heed(tooBig(t, sealed, 1300, 100))
		if believed := s.Counts()[Narrowed] == 1; believed != (port == sa.EncapPort) {
			t.Errorf("%s: believed %t", name, believed)
		}
	}
}
