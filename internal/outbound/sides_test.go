package outbound

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
	"tapsec/wire"
)

// What a rule, a selector or an EtherType means does not depend on the direction:
// the tables of this file are held against the Receiver and the Sender alike.

// verdict is what becomes of a packet in either direction.
type verdict string

const (
	passes    verdict = "passes"
	discarded verdict = "is discarded"
	protect   verdict = "must be protected"
	noRule    verdict = "is in no rule"
	hidden    verdict = "is hidden"
	refused   verdict = "is none of the SA's"
	parted    verdict = "parts its headers"
)

var inbound = map[transport.Reason]verdict{
	transport.None: passes, transport.Discard: discarded, transport.Clear: protect, transport.NoPolicy: noRule,
	transport.Hidden: hidden, transport.Selector: refused, transport.ShortChain: parted,
}

var outward = map[Reason]verdict{
	Bypassed: passes, Link: passes, NotIP: passes, Sealed: passes, Discarded: discarded, NoSA: protect, Unprotected: noRule,
	Hidden: hidden, ShortChain: parted,
}

// received is what a Receiver makes of a frame whose NIC leaves all to software.
func received(t *testing.T, frame []byte, policy []sa.Policy, sas ...*sa.SA) verdict {
	t.Helper()
	full, _ := sa.ProfileByName("full")
	software := pipeline.NewSoftware()
	if err := software.Replace(bundles(sas)); err != nil {
		t.Fatal(err)
	}
	r, err := transport.New(transport.Config{
		SAs: bundles(sas), Policy: policy, Fallback: software, Local: []netip.Addr{netip.IPv6Unspecified()}, // none of the packets' is ours
	})
	if err != nil {
		t.Fatal(err)
	}
	nic := pipeline.New(pipeline.NewSAD(full, 1), pipeline.Options{})
	buffer := append(make([]byte, 0, len(frame)+status.Tailroom), frame...)
	_, _, reason := r.Judge(nic.Process(buffer))
	v, ok := inbound[reason]
	if !ok {
		t.Fatalf("received: %v", reason)
	}
	return v
}

// sent is what a Sender makes of a frame.
func sent(t *testing.T, frame []byte, policy []sa.Policy, sas ...*sa.SA) verdict {
	t.Helper()
	s := newSender(t, Config{Policy: policy, SAs: sas})
	s.Batch([][]byte{frame})
	for reason, n := range s.Counts() {
		if n == 0 {
			continue
		}
		v, ok := outward[Reason(reason)]
		if !ok {
			t.Fatalf("sent: %v", Reason(reason))
		}
		return v
	}
	t.Fatal("nothing was counted")
	return ""
}

// cut is a fragment of a frame: n bytes of what lies behind the IP header, from
// byte at on. IPv6's extension headers are part of that.
func cut(frame []byte, at, n int) []byte {
	if frame[14]>>4 == 6 {
		const header = 14 + wire.IPv6Len
		bits := uint16(at)
		if header+at+n < len(frame) {
			bits |= 1
		}
		b := bytes.Clone(frame[:header])
		b = be.AppendUint16(append(b, b[20], 0), bits)
		b = append(be.AppendUint32(b, 9), frame[header+at:header+at+n]...)
		b[20] = wire.ProtoFragment
		be.PutUint16(b[18:], uint16(len(b)-header))
		return b
	}
	const header = 14 + wire.IPv4Len
	bits := uint16(at / 8)
	if header+at+n < len(frame) {
		bits |= moreFragments
	}
	b := bytes.Clone(frame[:header])
	be.PutUint16(b[20:], bits)
	b = append(b, frame[header+at:header+at+n]...)
	be.PutUint16(b[16:], uint16(len(b)-14))
	return edited(b, func([]byte) {})
}

// optioned is an IPv6 frame with n headers of destination options of 8 bytes each.
func optioned(n int, frame []byte) []byte {
	packet := frame[14:]
	for range n {
		packet = forge.Extension(nil, packet, wire.ProtoDestOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0})
	}
	return append(bytes.Clone(frame[:14]), packet...)
}

// of changes the protocol of a frame's packet.
func of(proto uint8, frame []byte) []byte {
	return edited(bytes.Clone(frame), func(ip []byte) {
		at := 9
		if ip[0]>>4 == 6 {
			at = 6
		}
		ip[at] = proto
	})
}

// Contract, The transport, step 7; RFC 4301 section 4.4.1.1.
func TestPolicyBothSides(t *testing.T) {
	const dccp, sctp, udpLite, icmp = 33, 132, 136, 1
	to4242 := sa.Selector{DstPorts: port(4242)}
	all := sa.Policy{Action: sa.Bypass}
	rules := func(s sa.Selector, a sa.Action) []sa.Policy { return []sa.Policy{{Match: s, Action: a}} }
	for name, c := range map[string]struct {
		frame  []byte
		policy []sa.Policy
		want   verdict
	}{
		"no rule for it":          {udp(4, 64), rules(sa.Selector{Protocol: 6}, sa.Bypass), noRule},
		"bypass":                  {udp(4, 64), rules(sa.Selector{Protocol: 17}, sa.Bypass), passes},
		"discard":                 {udp(6, 64), rules(sa.Selector{Protocol: 17}, sa.Discard), discarded},
		"protect":                 {udp(4, 64), rules(sa.Selector{Protocol: 17}, sa.Protect), protect},
		"the first decides":       {udp(4, 64), append(rules(to4242, sa.Discard), all), discarded},
		"source":                  {udp(4, 64), rules(sa.Selector{Src: prefix("10.0.0.1/32")}, sa.Discard), discarded},
		"another source":          {udp(4, 64), append(rules(sa.Selector{Src: prefix("10.0.0.2/32")}, sa.Discard), all), passes},
		"destination":             {udp(6, 64), rules(sa.Selector{Dst: prefix("2001:db8:1::/64")}, sa.Discard), discarded},
		"another destination":     {udp(6, 64), append(rules(sa.Selector{Dst: prefix("10.0.0.0/8")}, sa.Discard), all), passes},
		"port":                    {udp(6, 64), rules(to4242, sa.Discard), discarded},
		"port below the range":    {udp(4, 64), append(rules(sa.Selector{DstPorts: sa.Ports{First: 4243, Last: 5000}}, sa.Discard), all), passes},
		"port above the range":    {udp(4, 64), append(rules(sa.Selector{DstPorts: sa.Ports{First: 1, Last: 4241}}, sa.Discard), all), passes},
		"source port":             {udp(4, 64), rules(sa.Selector{SrcPorts: port(7)}, sa.Discard), discarded},
		"TCP has ports":           {of(wire.ProtoTCP, udp(4, 64)), rules(to4242, sa.Discard), discarded},
		"SCTP has ports":          {of(sctp, udp(4, 64)), rules(to4242, sa.Discard), discarded},
		"DCCP has ports":          {of(dccp, udp(4, 64)), rules(to4242, sa.Discard), discarded},
		"UDP-Lite has ports":      {of(udpLite, udp(6, 64)), rules(to4242, sa.Discard), discarded},
		"ICMP has none":           {of(icmp, udp(4, 64)), append(rules(to4242, sa.Discard), all), passes},
		"later, perhaps bypassed": {cut(udp(4, 64), 24, 48), rules(to4242, sa.Bypass), noRule},
		"later, bypassed":         {cut(udp(4, 64), 24, 48), rules(sa.Selector{Protocol: 17}, sa.Bypass), passes},
		"later, perhaps discarded": {cut(udp(6, 64), 24, 48), append(rules(to4242, sa.Discard), all),
			discarded},
		"later, perhaps protected": {cut(udp(4, 64), 24, 48), append(rules(to4242, sa.Protect), all), protect},
		"later, another protocol": {cut(udp(4, 64), 24, 48),
			append(rules(sa.Selector{Protocol: 6, DstPorts: port(4242)}, sa.Discard), all), passes},
	} {
		t.Run(name, func(t *testing.T) {
			if got := received(t, c.frame, c.policy); got != c.want {
				t.Errorf("received it %s, want it %s", got, c.want)
			}
			if got := sent(t, c.frame, c.policy); got != c.want {
				t.Errorf("sent it %s, want it %s", got, c.want)
			}
		})
	}
}

// Contract, The transport, step 7; RFC 7112, RFC 1858, RFC 3128: what of a
// fragment nobody can see counts for every rule that protects or discards, and
// for none that lets through; one that parts the headers is held against none.
func TestFragmentBothSides(t *testing.T) {
	tcp4, tcp6 := of(wire.ProtoTCP, udp(4, 64)), of(wire.ProtoTCP, udp(6, 64))
	port4242 := sa.Selector{Protocol: wire.ProtoTCP, DstPorts: port(4242)}
	not4242 := []sa.Policy{{Match: port4242, Action: sa.Discard}, {Action: sa.Bypass}}
	sealed4242 := []sa.Policy{{Match: port4242, Action: sa.Protect}, {Action: sa.Bypass}}
	only := func(proto uint8) []sa.Policy {
		return []sa.Policy{{Match: sa.Selector{Protocol: proto}, Action: sa.Bypass}}
	}
	for name, c := range map[string]struct {
		frame  []byte
		policy []sa.Policy
		want   verdict
	}{
		"options alone":                          {cut(optioned(1, tcp6), 0, 8), not4242, parted},
		"options alone, cut in the chain":        {cut(optioned(2, tcp6), 0, 8), not4242, parted},
		"options alone, and rules for UDP":       {cut(optioned(1, tcp6), 0, 8), only(wire.ProtoUDP), parted},
		"options and ports":                      {cut(optioned(1, tcp6), 0, 16), not4242, parted},
		"options and all of TCP's header":        {cut(optioned(1, tcp6), 0, 32), not4242, discarded},
		"the same of another port":               {cut(optioned(1, of(wire.ProtoUDP, tcp6)), 0, 32), not4242, passes},
		"options before":                         {cut(optioned(1, tcp6), 8, 64), not4242, discarded},
		"options before, protected":              {cut(optioned(1, tcp6), 8, 64), sealed4242, protect},
		"options before, bypass for TCP":         {cut(optioned(1, tcp6), 8, 64), only(wire.ProtoTCP), noRule},
		"options before, bypass for options":     {cut(optioned(1, tcp6), 8, 64), only(wire.ProtoDestOpts), noRule},
		"options before, bypass for all":         {cut(optioned(1, tcp6), 8, 64), []sa.Policy{{Action: sa.Bypass}}, passes},
		"IPv4 without ports":                     {cut(tcp4, 0, 0), not4242, parted},
		"IPv4 with ports, without flags":         {cut(tcp4, 0, 8), not4242, parted},
		"IPv4 with all of TCP's header":          {cut(tcp4, 0, 24), not4242, discarded},
		"IPv4, flags again":                      {cut(tcp4, 8, 24), []sa.Policy{{Action: sa.Bypass}}, parted},
		"IPv6, flags again":                      {cut(tcp6, 8, 24), []sa.Policy{{Action: sa.Bypass}}, parted},
		"UDP of 8 bytes":                         {cut(udp(4, 64), 0, 8), []sa.Policy{{Action: sa.Bypass}}, passes},
		"behind TCP's header":                    {cut(tcp4, 24, 24), not4242, discarded},
		"behind TCP's header, bypass for TCP":    {cut(tcp4, 24, 24), only(wire.ProtoTCP), passes},
		"no fragment, too short for ports":       {edited(udp(4, 64)[:36], func(ip []byte) { ip[3], ip[9] = 22, wire.ProtoTCP }), not4242, discarded},
		"no fragment, too short, perhaps passes": {edited(udp(4, 64)[:36], func(ip []byte) { ip[3], ip[9] = 22, wire.ProtoTCP }), []sa.Policy{{Match: port4242, Action: sa.Bypass}}, noRule},
	} {
		t.Run(name, func(t *testing.T) {
			if got := received(t, c.frame, c.policy); got != c.want {
				t.Errorf("received it %s, want it %s", got, c.want)
			}
			if got := sent(t, c.frame, c.policy); got != c.want {
				t.Errorf("sent it %s, want it %s", got, c.want)
			}
		})
	}
}

// Contract, The transport, step 7: what may hide a packet passes in no direction,
// neighbour discovery passes in both.
func TestLinkBothSides(t *testing.T) {
	discover := func(kind, hops uint8) []byte {
		return edited(forge.AppendFrame(nil, forge.Echo(nil, hosts[6][0], hosts[6][1], 1, 1, nil)), func(ip []byte) {
			ip[7], ip[wire.IPv6Len] = hops, kind
		})
	}
	ether := func(t uint16) []byte {
		return append(binary.BigEndian.AppendUint16(udp(4, 64)[:12], t), make([]byte, 64)...)
	}
	llc := func(b ...byte) []byte { return append(ether(70)[:14], append(b, make([]byte, 70-len(b))...)...) }
	tagged := func(frame []byte) []byte { return slices.Insert(frame, 12, 0x81, 0, 0, 1) }
	for name, c := range map[string]struct {
		frame []byte
		want  verdict
	}{
		"ARP":                   {ether(0x0806), passes},
		"PPPoE":                 {ether(0x8864), hidden},
		"MPLS":                  {ether(0x8847), hidden},
		"MPLS, multicast":       {ether(0x8848), hidden},
		"provider backbone":     {ether(0x88e7), hidden},
		"older tag":             {ether(0x9100), hidden},
		"MACsec":                {ether(0x88e5), hidden},
		"TRILL":                 {ether(0x22f3), hidden},
		"SNAP":                  {llc(0xaa, 0xaa, 3, 0, 0, 0, 8, 0), hidden},
		"SNAP, bridged":         {llc(0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0), hidden},
		"SNAP behind a tag":     {tagged(llc(0xaa, 0xaa, 3, 0, 0, 0, 8, 0)), hidden},
		"IP behind LLC":         {llc(0x06, 0x06, 3), hidden},
		"SNAP of Cisco's":       {llc(0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0), passes},
		"spanning tree":         {llc(0x42, 0x42, 3), passes},
		"three tags":            {udp(4, 64, 0x81000001, 0x81000002, 0x81000003), hidden},
		"router solicitation":   {discover(133, 255), passes},
		"redirect":              {discover(137, 255), passes},
		"solicitation from far": {discover(135, 254), discarded},
		"group membership":      {discover(132, 255), discarded},
		"router renumbering":    {discover(138, 255), discarded},
	} {
		t.Run(name, func(t *testing.T) {
			policy := []sa.Policy{{Action: sa.Discard}}
			if got := received(t, c.frame, policy); got != c.want {
				t.Errorf("received it %s, want it %s", got, c.want)
			}
			if got := sent(t, c.frame, policy); got != c.want {
				t.Errorf("sent it %s, want it %s", got, c.want)
			}
		})
	}
}

// Contract, The transport, step 5: the receiver takes from an SA what a sender with the
// same selector gives it, and nothing else.
func TestSelectorBothSides(t *testing.T) {
	for name, c := range map[string]struct {
		selector sa.Selector
		frame    []byte
		want     verdict
	}{
		"anything":             {sa.Selector{}, udp(4, 64), passes},
		"addresses":            {sa.Selector{Src: prefix("10.0.0.0/31"), Dst: prefix("10.0.0.2/32")}, udp(4, 64), passes},
		"another source":       {sa.Selector{Src: prefix("10.0.0.2/31")}, udp(4, 64), refused},
		"another destination":  {sa.Selector{Dst: prefix("10.0.0.0/31")}, udp(4, 64), refused},
		"protocol":             {sa.Selector{Protocol: 17}, udp(6, 64), passes},
		"another protocol":     {sa.Selector{Protocol: 6}, udp(6, 64), refused},
		"ports":                {sa.Selector{SrcPorts: port(7), DstPorts: port(4242)}, udp(4, 64), passes},
		"another port":         {sa.Selector{DstPorts: port(4243)}, udp(4, 64), refused},
		"later, without ports": {sa.Selector{Protocol: 17}, cut(udp(4, 64), 24, 48), passes},
		"options alone":        {sa.Selector{Dst: prefix("2001:db8:1::/64")}, cut(optioned(1, udp(6, 64)), 0, 8), parted},
		"options before":       {sa.Selector{Protocol: wire.ProtoDestOpts}, cut(optioned(1, udp(6, 64)), 8, 64), refused},
		"later, with ports":    {sa.Selector{DstPorts: sa.Ports{First: 1, Last: 65535}}, cut(udp(4, 64), 24, 48), refused},
	} {
		t.Run(name, func(t *testing.T) {
			any, only := site(4), with(site(4), selecting(c.selector))
			var got verdict
			for _, f := range send(newSender(t, Config{SAs: []*sa.SA{any}}), c.frame) {
				got = received(t, f, nil, only)
			}
			if got != c.want {
				t.Errorf("received it %s, want it %s", got, c.want)
			}
			got = sent(t, c.frame, nil, only)
			if got == noRule || got == protect { // no SA takes it
				got = refused
			}
			if got != c.want {
				t.Errorf("sent it %s, want it %s", got, c.want)
			}
		})
	}
}
