package transport_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/transport"
	"tapsec/wire"
)

func udp(from, to string) []byte {
	return forge.UDP(nil, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to), message)
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// later is the second half of a packet, cut in two, and first the first one.
func fragments(packet []byte, id uint16) (first, later []byte) {
	const unit, more = 8, 0x2000
	p, _ := wire.Addresses(packet, 0)
	n := (len(packet) - p.Header) / 2 / unit * unit
	cut := func(from, to int, bits uint16) []byte {
		b := bytes.Clone(packet[:p.Header])
		if p.Version == 6 {
			h := binary.BigEndian.AppendUint16([]byte{b[p.ProtoAt], 0}, uint16(from)|bits>>13)
			h = binary.BigEndian.AppendUint32(h, uint32(id))
			b[p.ProtoAt] = wire.ProtoFragment
			b = append(b, h...)
		} else {
			binary.BigEndian.PutUint16(b[4:], id)
			binary.BigEndian.PutUint16(b[6:], uint16(from/unit)|bits)
		}
		b = append(b, packet[p.Header+from:p.Header+to]...)
		if p.Version == 6 {
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
			return b
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return mended(b)
	}
	return cut(0, n, more), cut(n, len(packet)-p.Header, 0)
}

// Contract, The transport, step 5, RFC 4301 section 4.4.1.1: what an SA may carry is held against
// the packet directly beneath it.
func TestSelector(t *testing.T) {
	first, later := fragments(udp("10.1.0.1:4000", "10.9.0.1:5000"), 7) // to somebody behind us
	there := udp("10.1.0.1:4000", "10.2.0.2:5000")
	dccp := bytes.Clone(there)
	dccp[9] = 33
	for name, c := range map[string]struct {
		selector sa.Selector
		packet   []byte
		want     transport.Reason
	}{
		"anything":               {sa.Selector{}, there, 0},
		"addresses":              {sa.Selector{Src: prefix("10.1.0.0/16"), Dst: prefix("10.2.0.2/32")}, there, 0},
		"source":                 {sa.Selector{Src: prefix("10.3.0.0/16")}, there, transport.Selector},
		"destination":            {sa.Selector{Dst: prefix("10.2.0.0/31")}, there, transport.Selector},
		"the other family":       {sa.Selector{Dst: prefix("2001:db8::/32")}, there, transport.Selector},
		"protocol":               {sa.Selector{Protocol: 17}, there, 0},
		"another protocol":       {sa.Selector{Protocol: 6}, there, transport.Selector},
		"ports":                  {sa.Selector{SrcPorts: sa.Ports{First: 4000, Last: 4000}, DstPorts: sa.Ports{First: 1, Last: 5000}}, there, 0},
		"source port below":      {sa.Selector{SrcPorts: sa.Ports{First: 4001, Last: 5000}}, there, transport.Selector},
		"source port above":      {sa.Selector{SrcPorts: sa.Ports{First: 1, Last: 3999}}, there, transport.Selector},
		"destination port":       {sa.Selector{DstPorts: sa.Ports{First: 5001, Last: 6000}}, there, transport.Selector},
		"DCCP has ports":         {sa.Selector{DstPorts: sa.Ports{First: 5000, Last: 5000}}, mended(dccp), 0},
		"ICMP has none":          {sa.Selector{DstPorts: sa.Ports{First: 1, Last: 65535}}, forge.Echo(nil, host4a, host4b, 0x1388, 0x1388, message), transport.Selector},
		"too short for ports":    {sa.Selector{DstPorts: sa.Ports{First: 1, Last: 65535}}, mended(append([]byte{0x45, 0, 0, 22, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2}, 1, 1)), transport.Selector},
		"fragment, ports":        {sa.Selector{DstPorts: sa.Ports{First: 5000, Last: 5000}}, first, 0},
		"later fragment, ports":  {sa.Selector{DstPorts: sa.Ports{First: 1, Last: 65535}}, later, transport.Selector},
		"later fragment, none":   {sa.Selector{Protocol: 17, Dst: prefix("10.9.0.0/16")}, later, 0},
		"later fragment, others": {sa.Selector{Dst: prefix("10.8.0.0/16")}, later, transport.Selector},
	} {
		t.Run(name, func(t *testing.T) {
			tun := espSA(sa.Tunnel, selecting(c.selector))
			both(t, setup{sas: []*sa.SA{tun}}, func(t *testing.T, h *host) {
				frame := framed(once(t, 1, c.packet, tun))
				if c.want != transport.None {
					h.drops(frame, c.want)
					return
				}
				h.delivers(frame, framed(c.packet))
			})
		})
	}
}

// Rules and selectors mind how headers are parted; a bundle without a selector does not.
func TestShortChainBeneath(t *testing.T) {
	tiny := mended(append([]byte{0x45, 0, 0, 36, 0, 7, 0x20, 0, 64, 6, 0, 0, 10, 1, 0, 1, 10, 9, 0, 1}, make([]byte, 16)...)) // of TCP's 20 bytes 16
	h := newHost(t, setup{policy: []sa.Policy{{Action: sa.Bypass}}})
	h.drops(framed(tiny), transport.ShortChain)
	h = newHost(t, setup{})
	h.delivers(framed(tiny), framed(tiny))
	plain, with := bundle(sa.Tunnel), bundle(sa.Tunnel)
	selecting(sa.Selector{Protocol: wire.ProtoTCP})(with[1])
	for _, sas := range [][]*sa.SA{{espSA(sa.Tunnel)}, plain} {
		both(t, setup{sas: sas}, func(t *testing.T, h *host) { h.delivers(framed(once(t, 1, tiny, sas...)), framed(tiny)) })
	}
	for _, sas := range [][]*sa.SA{{espSA(sa.Tunnel, selecting(sa.Selector{Protocol: wire.ProtoTCP}))}, with} {
		both(t, setup{sas: sas}, func(t *testing.T, h *host) { h.drops(framed(once(t, 1, tiny, sas...)), transport.ShortChain) })
	}
}

// Each SA's selector is for the packet directly beneath that SA: a tunnel's for
// the packet with ESP in it, the host's for what that carries. Both SAs of a
// bundle are asked.
func TestSelectorBeneath(t *testing.T) {
	only := func(p uint8) change { return selecting(sa.Selector{Protocol: p}) }
	pair := func(e, a uint8) []*sa.SA {
		s := bundle(sa.Transport)
		only(e)(s[0])
		only(a)(s[1])
		return s
	}
	for name, c := range map[string]struct {
		sas  []*sa.SA
		want transport.Reason
	}{
		"each its own":           {[]*sa.SA{espSA(sa.Transport, only(17)), espSA(sa.Tunnel, only(50))}, 0},
		"the tunnel looks below": {[]*sa.SA{espSA(sa.Transport, only(17)), espSA(sa.Tunnel, only(17))}, transport.Selector},
		"the host's refuses":     {[]*sa.SA{espSA(sa.Transport, only(6)), espSA(sa.Tunnel, only(50))}, transport.Selector},
		"AH over ESP":            {[]*sa.SA{espSA(sa.Transport, only(17)), ahSA(sa.Transport, only(50))}, 0},
		"bundle":                 {pair(17, 17), 0},
		"bundle's ESP":           {pair(6, 17), transport.Selector},
		"bundle's AH":            {pair(17, 50), transport.Selector},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: c.sas}, func(t *testing.T, h *host) {
				frame := framed(once(t, 1, plain4(), c.sas...))
				if c.want != transport.None {
					h.drops(frame, c.want)
				} else {
					h.delivers(frame, framed(plain4()))
				}
				for s := range h.States() {
					if s.Window.Seen != 1 {
						t.Errorf("the window of %s has seen %d", s.Name, s.Window.Seen)
					}
				}
			})
		})
	}
}

// Contract, The transport, step 7, RFC 4301 section 5.2: the first rule that matches decides.
func TestPolicy(t *testing.T) {
	mine, other, tun := espSA(sa.Transport), espSA(sa.Transport, spi(0x1005)), espSA(sa.Tunnel)
	to := func(action sa.Action, port uint16, name string) sa.Policy {
		return sa.Policy{Match: sa.Selector{DstPorts: sa.Ports{First: port, Last: port}}, Action: action, SA: name}
	}
	all := func(action sa.Action, name string) sa.Policy { return sa.Policy{Action: action, SA: name} }
	clear := func(t *testing.T) []byte { return framed(plain4()) }
	by := func(sas ...*sa.SA) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return framed(once(t, 1, plain4(), sas...)) }
	}
	for name, c := range map[string]struct {
		policy []sa.Policy
		frame  func(*testing.T) []byte
		want   transport.Reason
	}{
		"none":                           {nil, clear, 0},
		"bypass":                         {[]sa.Policy{all(sa.Bypass, "")}, clear, 0},
		"discard":                        {[]sa.Policy{all(sa.Discard, "")}, clear, transport.Discard},
		"discard what came sealed":       {[]sa.Policy{all(sa.Discard, "")}, by(mine), transport.Discard},
		"protect, clear":                 {[]sa.Policy{all(sa.Protect, "")}, clear, transport.Clear},
		"protect, any SA":                {[]sa.Policy{all(sa.Protect, "")}, by(mine), 0},
		"protect, this SA":               {[]sa.Policy{all(sa.Protect, mine.Name)}, by(mine), 0},
		"protect, another SA":            {[]sa.Policy{all(sa.Protect, mine.Name)}, by(other), transport.OtherSA},
		"protect by SA, clear":           {[]sa.Policy{all(sa.Protect, mine.Name)}, clear, transport.Clear},
		"protect, the outer SA":          {[]sa.Policy{all(sa.Protect, tun.Name)}, by(mine, tun), 0},
		"protect, the inner SA":          {[]sa.Policy{all(sa.Protect, mine.Name)}, by(mine, tun), 0},
		"protect, an SA of neither":      {[]sa.Policy{all(sa.Protect, other.Name)}, by(mine, tun), transport.OtherSA},
		"no rule, clear":                 {[]sa.Policy{to(sa.Bypass, 1, "")}, clear, transport.NoPolicy},
		"no rule, sealed":                {[]sa.Policy{to(sa.Bypass, 1, "")}, by(mine), 0},
		"first match: bypass":            {[]sa.Policy{to(sa.Bypass, 5000, ""), all(sa.Discard, "")}, clear, 0},
		"first match: discard":           {[]sa.Policy{to(sa.Discard, 5000, ""), all(sa.Bypass, "")}, clear, transport.Discard},
		"first match: protect":           {[]sa.Policy{to(sa.Protect, 5000, ""), all(sa.Bypass, "")}, clear, transport.Clear},
		"not the first":                  {[]sa.Policy{to(sa.Discard, 1, ""), to(sa.Discard, 2, ""), all(sa.Bypass, "")}, clear, 0},
		"bypass what came sealed anyway": {[]sa.Policy{all(sa.Bypass, "")}, by(mine), 0},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: []*sa.SA{mine, other, tun}, policy: c.policy}, func(t *testing.T, h *host) {
				if c.want != transport.None {
					h.drops(c.frame(t), c.want)
					return
				}
				h.delivers(c.frame(t), framed(plain4()))
			})
		})
	}
}

// A later fragment shows no ports: a rule that permits must mean it for certain,
// one that restricts only perhaps.
func TestPolicyLaterFragment(t *testing.T) {
	_, later := fragments(udp("10.1.0.1:4000", "10.9.0.1:5000"), 7)
	ports := sa.Selector{Protocol: 17, DstPorts: sa.Ports{First: 1, Last: 1}}
	bypass := sa.Policy{Action: sa.Bypass}
	for name, c := range map[string]struct {
		policy []sa.Policy
		want   transport.Reason
	}{
		"permit perhaps":  {[]sa.Policy{{Match: ports, Action: sa.Bypass}}, transport.NoPolicy},
		"permit":          {[]sa.Policy{{Match: sa.Selector{Protocol: 17}, Action: sa.Bypass}}, 0},
		"discard perhaps": {[]sa.Policy{{Match: ports, Action: sa.Discard}, bypass}, transport.Discard},
		"protect perhaps": {[]sa.Policy{{Match: ports, Action: sa.Protect}, bypass}, transport.Clear},
		"discard others":  {[]sa.Policy{{Match: sa.Selector{Protocol: 6}, Action: sa.Discard}, bypass}, 0},
	} {
		h := newHost(t, setup{policy: c.policy})
		if _, v, r := h.receive(framed(later)); r != c.want || v.Clean() != (c.want == 0) {
			t.Errorf("%s: %s (%s), want %s", name, v, r, c.want)
		}
	}
}

// What is no IP packet passes, and so does neighbour discovery of the link;
// through a tunnel it is a packet like any other. IKE and ICMP errors are the
// policy's. Frames that may hide a packet do not pass.
func TestPolicyIsAboutPackets(t *testing.T) {
	nothing := []sa.Policy{{Action: sa.Discard}}
	arp := append(framed(make([]byte, 46))[:12], append([]byte{8, 6}, make([]byte, 46)...)...)
	discovery := func(icmp, hops byte) []byte {
		b := forge.Echo(nil, host6a, host6b, 1, 1, nil)
		b[7], b[40] = hops, icmp
		return b
	}
	ether := func(t uint16) []byte { return binary.BigEndian.AppendUint16(bytes.Clone(arp[:12]), t) }
	ike := forge.UDP(nil, netip.AddrPortFrom(host4a, 500), netip.AddrPortFrom(host4b, 500), message)
	nat := forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(host4b, 4500), append(make([]byte, 4), message...))
	echo := forge.Echo(nil, host4a, host4b, 1, 1, nil)
	echo[20] = 3
	tun, natt := espSA(sa.Tunnel, v6), espSA(sa.Transport, encap)
	for name, c := range map[string]struct {
		frame []byte
		want  transport.Reason
	}{
		"ARP":                   {arp, 0},
		"unknown EtherType":     {append(ether(0x88cc), message...), 0},
		"solicitation":          {framed(discovery(135, 255)), 0},
		"router solicitation":   {framed(discovery(133, 255)), 0},
		"redirect":              {framed(discovery(137, 255)), 0},
		"solicitation from far": {framed(discovery(135, 254)), transport.Discard},
		"echo":                  {framed(discovery(128, 255)), transport.Discard},
		"router renumbering":    {framed(discovery(138, 255)), transport.Discard},
		"group membership":      {framed(discovery(132, 255)), transport.Discard},
		"in a tunnel":           {framed(once(t, 1, discovery(135, 255), tun)), transport.Discard},
		"IKE":                   {framed(ike), transport.Discard},
		"IKE behind NAT":        {framed(nat), transport.Discard},
		"ICMP error":            {framed(echo), transport.Discard},
		"PPPoE":                 {append(ether(0x8864), message...), transport.Hidden},
		"MPLS":                  {append(ether(0x8847), message...), transport.Hidden},
		"MACsec":                {append(ether(0x88e5), message...), transport.Hidden},
		"IP behind LLC":         {append(ether(60), append([]byte{6, 6, 3}, plain4()...)...), transport.Hidden},
		"SNAP":                  {append(ether(60), append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, plain4()...)...), transport.Hidden},
		"SNAP of 802.1H":        {append(ether(60), append([]byte{0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0}, plain4()...)...), transport.Hidden},
		"SNAP of another":       {append(ether(60), append([]byte{0xaa, 0xaa, 3, 0, 0, 12, 8, 0}, plain4()...)...), 0},
		"three tags":            {framed(plain4(), 0x81000001, 0x81000002, 0x81000003), transport.Hidden},
		"no EtherType":          {arp[:13], transport.Hidden},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, setup{sas: []*sa.SA{tun, natt}, policy: nothing})
			if _, v, r := h.receive(c.frame); r != c.want || v.Clean() != (c.want == 0) {
				t.Errorf("%s (%s), want %s", v, r, c.want)
			}
			open := newHost(t, setup{sas: []*sa.SA{tun, natt}, policy: []sa.Policy{{Action: sa.Bypass}}})
			if _, v, r := open.receive(c.frame); v.Clean() != (c.want != transport.Hidden) {
				t.Errorf("%s (%s) where everything may pass", v, r)
			}
		})
	}
}

// Eight bytes at the port of an encapsulated SA are an SPI and a number, and so ESP of
// somebody; seven are a datagram.
func TestShortestInUDP(t *testing.T) {
	both(t, setup{sas: []*sa.SA{espSA(sa.Transport, encap)}}, func(t *testing.T, h *host) {
		datagram := func(n int) []byte {
			return framed(forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(host4b, 4500), []byte{0, 0, 0xde, 0xad, 0, 0, 0, 1}[:n]))
		}
		h.drops(datagram(8), transport.NoSA)
		h.delivers(datagram(7), datagram(7))
	})
}

// What a server behind a NAT's other side sends goes from port 4500 to any, and is
// opened by the NIC as by software (contract, UDP-ESP).
func TestBehindNAT(t *testing.T) {
	natted := espSA(sa.Transport, encap, func(s *sa.SA) { s.EncapDst = 19765 })
	for name, prepare := range map[string]func(*pipeline.SAD){"NIC": nil, "software": func(d *pipeline.SAD) { d.Activate(false) }} {
		h := newHost(t, setup{sas: []*sa.SA{natted}, prepare: prepare})
		if _, v, r := h.receive(framed(once(t, 1, plain4(), natted))); !v.Clean() {
			t.Errorf("%s: %s (%s)", name, v, r)
		}
	}
}

// Contract, The transport, step 2: IPsec to us without an SA is dropped; to others it is traffic
// like any other, keep-alives included.
func TestOthers(t *testing.T) {
	us, them := espSA(sa.Transport, spi(9)), espSA(sa.Transport, spi(9), between(host4a, netip.MustParseAddr("10.9.0.1")))
	ahUs, natUs, natThem := ahSA(sa.Transport, spi(9)), espSA(sa.Transport, spi(9), encap), espSA(sa.Transport, spi(9), encap)
	natThem.Dst = them.Dst
	to := func(a netip.Addr, payload ...byte) []byte {
		return framed(forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(a, 4500), payload))
	}
	theirs := udp("10.1.0.1:4000", "10.9.0.1:5000")
	short := mended(append([]byte{0x45, 0, 0, 22, 0, 0, 0, 0, 64, 50, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2}, 1, 1))
	sas := []*sa.SA{espSA(sa.Transport, encap), espSA(sa.Tunnel)}
	h := newHost(t, setup{sas: sas})
	h.drops(framed(once(t, 1, plain4(), us)), transport.NoSA)
	h.drops(framed(once(t, 1, plain4(), ahUs)), transport.NoSA)
	h.drops(framed(once(t, 1, plain4(), natUs)), transport.NoSA)
	h.drops(framed(once(t, 1, plain4(), us, sas[1])), transport.NoSA)
	h.drops(framed(short), transport.NoSA)
	h.drops(framed(once(t, 1, plain4(), espSA(sa.Transport))), transport.NoSA) // ours is encapsulated
	h.drops(to(host4b, 0xff), transport.KeepAlive)
	for _, frame := range [][]byte{
		framed(once(t, 1, theirs, them)), framed(once(t, 1, theirs, natThem)), to(them.Dst, 0xff),
		to(host4b, 0, 0, 0, 0, 1, 2, 3, 4, 5), to(host4b, 1, 2, 3), to(host4b), to(host4b, 0xff, 0xff), to(host4b, 7),
	} {
		h.delivers(frame, frame)
	}
	through := once(t, 2, once(t, 1, theirs, them), sas[1])
	h.delivers(framed(through), framed(once(t, 1, theirs, them)))

	h = newHost(t, setup{sas: sas[1:]}) // without an encapsulated SA the port is like any other
	for _, frame := range [][]byte{to(host4b, 0xff), framed(once(t, 1, plain4(), natUs))} {
		h.delivers(frame, frame)
	}
	h = newHost(t, setup{sas: []*sa.SA{espSA(sa.Tunnel, never)}})
	h.drops(framed(once(t, 1, plain4(), ahSA(sa.Tunnel, spi(0x2001)))), transport.NoSA) // the SA of that SPI is for ESP
	h = newHost(t, setup{sas: []*sa.SA{ahSA(sa.Transport, never)}})
	h.drops(framed(once(t, 1, plain4(), espSA(sa.Transport, spi(0x1002)))), transport.NoSA) // and of that one for AH
	h = newHost(t, setup{sas: sas, local: []netip.Addr{}})                                  // every address is ours
	h.drops(framed(once(t, 1, theirs, them)), transport.NoSA)
	h.drops(to(them.Dst, 0xff), transport.KeepAlive)
}

// A later fragment to others is no ESP in UDP, whatever its data looks like.
func TestOthersFragment(t *testing.T) {
	anybody := espSA(sa.Transport, encap, between(netip.Addr{}, netip.Addr{}))
	inside := forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(host4b, 4500), append([]byte{0, 0, 0x10, 1}, make([]byte, 36)...))[20:]
	packet := forge.UDP(nil, netip.MustParseAddrPort("10.1.0.1:4000"), netip.MustParseAddrPort("10.9.0.1:5000"), append(make([]byte, 40), inside...))
	_, later := fragments(packet, 7)
	h := newHost(t, setup{sas: []*sa.SA{anybody}})
	h.delivers(framed(later), framed(later))
}

// Contract, The transport, step 2, and row 3: behind a routing header with segments left
// nobody opens ESP. It has an SA, and is dropped all the same.
func TestUnsupported(t *testing.T) {
	esp := espSA(sa.Transport, v6)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		h.drops(framed(forge.Extension(nil, once(t, 1, plain6(), esp), wire.ProtoRouting, []byte{0, 0, 0, 1, 0, 0, 0, 0})), transport.Unsupported)
	})
}

// IP headers that do not fit, or whose checksum is wrong.
func TestBadIP(t *testing.T) {
	spoil := func(change func(b []byte)) []byte {
		b := plain4()
		change(b)
		return b
	}
	six := framed(plain6())
	six[12], six[13] = 0x08, 0x00
	four := framed(plain4())
	four[12], four[13] = 0x86, 0xdd
	h := newHost(t, setup{})
	for name, c := range map[string]struct {
		frame []byte
		want  transport.Reason
	}{
		"nothing behind the type": {framed(plain4())[:14], transport.BadIP},
		"header cut":              {framed(plain4())[:30], transport.BadIP},
		"packet cut":              {framed(plain4())[:60], transport.BadIP},
		"IPv6 cut":                {framed(plain6())[:90], transport.BadIP},
		"version":                 {framed(spoil(func(b []byte) { b[0] = 0x55 }))[:], transport.BadIP},
		"IHL":                     {framed(mended(spoil(func(b []byte) { b[0] = 0x44 }))), transport.BadIP},
		"length":                  {framed(mended(spoil(func(b []byte) { b[2], b[3] = 0, 19 }))), transport.BadIP},
		"IPv6 as IPv4":            {six, transport.BadIP},
		"IPv4 as IPv6":            {four, transport.BadIP},
		"checksum":                {framed(spoil(func(b []byte) { b[10] ^= 1 })), transport.IPChecksum},
		"TTL":                     {framed(spoil(func(b []byte) { b[8]-- })), transport.IPChecksum},
		"hop-by-hop elsewhere": {framed(forge.Extension(nil, forge.Extension(nil, plain6(), 60, make([]byte, 8)), 0, make([]byte, 8))),
			transport.BadIP},
	} {
		t.Run(name, func(t *testing.T) {
			h.tb = t
			h.drops(c.frame, c.want)
		})
	}
}

// What a tunnel must carry is one whole packet of the version that it announces.
func TestInnerNotIP(t *testing.T) {
	tun := espSA(sa.Tunnel)
	cut := plain4()
	cut[3] += 40
	for name, m := range map[string]forge.Mangle{
		"no packet":      forge.Payload([]byte("no packet")),
		"empty":          forge.Payload(nil),
		"IPv6 announced": forge.NextHeader(41),
		"IPv6 inside":    forge.Payload(plain6()),
		"UDP":            forge.NextHeader(17),
		"beyond":         forge.Payload(mended(cut)),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: []*sa.SA{tun}}, func(t *testing.T, h *host) {
				h.drops(framed(mangled(t, 1, m, plain4(), tun)), transport.InnerNotIP)
				if h.window(tun.Name).Seen != 1 {
					t.Error("the tunnel's number was forgotten")
				}
			})
		})
	}
}

// Contract, The transport, step 7: what is behind extension headers that ESP carried counts
// as what it is.
func TestPolicyBehindExtensionInESP(t *testing.T) {
	esp := espSA(sa.Transport, v6)
	extended := func(plain []byte) []byte {
		plain[len(plain)-1] = wire.ProtoDestOpts
		return append([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, plain...)
	}
	h := newHost(t, setup{sas: []*sa.SA{esp}, policy: []sa.Policy{
		{Match: sa.Selector{Protocol: wire.ProtoUDP, DstPorts: sa.Ports{First: 5000, Last: 5000}}, Action: sa.Discard},
	}})
	h.drops(framed(mangled(t, 1, extended, plain6(), esp)), transport.Discard)
}
