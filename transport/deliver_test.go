package transport_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/test/testkit"
	"tapsec/transport"
	"tapsec/wire"
)

// stacks are the layouts of one or more portions, innermost first.
func stacks() map[string][]*sa.SA {
	esp, ah, tun, ahTun := espSA(sa.Transport), ahSA(sa.Transport), espSA(sa.Tunnel), ahSA(sa.Tunnel)
	nat, natTun := espSA(sa.Transport, spi(0x1003), encap), espSA(sa.Tunnel, spi(0x2003), encap)
	second := espSA(sa.Tunnel, spi(0x2004))
	return map[string][]*sa.SA{
		"clear":                  nil,
		"ESP":                    {esp},
		"AH":                     {ah},
		"tunnel ESP":             {tun},
		"tunnel AH":              {ahTun},
		"AH+ESP":                 bundle(sa.Transport),
		"tunnel AH+ESP":          bundle(sa.Tunnel),
		"AH over ESP, unbundled": {esp, ah},
		"AH over tunnel ESP":     {tun, ahSA(sa.Transport, between(gw4a, gw4b))},
		"ESP over AH":            {ah, esp},
		"ESP in tunnel":          {esp, tun},
		"AH in tunnel AH":        {ah, ahTun},
		"AH+ESP in tunnel":       append(bundle(sa.Transport), tun),
		"AH+ESP in tunnel AH+ESP": append(bundle(sa.Transport),
			bundle(sa.Tunnel, func(s *sa.SA) { s.SPI += 0x1000; s.Name += "-outer" })...),
		"tunnel in tunnel":       {tun, second},
		"ESP in two tunnels":     {esp, tun, second},
		"NAT-T":                  {nat},
		"NAT-T tunnel":           {natTun},
		"NAT-T in tunnel":        {nat, tun},
		"ESP in NAT-T tunnel":    {esp, natTun},
		"NAT-T in NAT-T tunnel":  {nat, natTun},
		"IPv6 ESP":               {espSA(sa.Transport, v6)},
		"IPv6 AH":                {ahSA(sa.Transport, v6)},
		"IPv6 AH+ESP":            bundle(sa.Transport, v6),
		"IPv6 in IPv6":           {espSA(sa.Transport, v6), espSA(sa.Tunnel, v6)},
		"IPv6 in IPv4":           {espSA(sa.Transport, v6), tun},
		"IPv6 NAT-T":             {espSA(sa.Transport, v6, encap)},
		"IPv4 in IPv6":           {esp, ahSA(sa.Tunnel, v6)},
		"ESN":                    {espSA(sa.Transport, esn), espSA(sa.Tunnel, esn)},
		"three deep in software": {espSA(sa.Transport, never), espSA(sa.Tunnel, never), espSA(sa.Tunnel, spi(0x2004), never)},
	}
}

// packetFor is a packet that the stack of SAs can protect.
func packetFor(sas []*sa.SA) []byte {
	if len(sas) > 0 && sas[0].Dst == host6b {
		return plain6()
	}
	return plain4()
}

// Contract, The transport, steps 2, 5 and 8: what is delivered is what was sealed, byte for byte,
// whatever the NIC did of the work: Ethernet header, tags, packet.
func TestDeliver(t *testing.T) {
	for name, sas := range stacks() {
		for _, profile := range []string{"full", "ixgbe-82599", "mlx5-crypto", "no NIC"} {
			t.Run(name+"/"+profile, func(t *testing.T) {
				mine := slices.Clone(sas)
				for i, a := range mine {
					b := *a
					if b.Offload == sa.Required {
						b.Offload = sa.Preferred
					}
					if profile == "no NIC" {
						b.Offload = sa.Never
					}
					mine[i] = &b
				}
				s := setup{sas: mine, profile: profile}
				if profile == "no NIC" {
					s.profile = "full"
				}
				h := newHost(t, s)
				packet := packetFor(sas)
				for n, tags := range [][]uint32{nil, {0x81000064}, {0x88a80007, 0x81000064}} {
					h.delivers(framed(once(t, uint64(n)+1, packet, sas...), tags...), framed(packet, tags...))
				}
				padded := append(framed(once(t, 9, packet, sas...)), make([]byte, 11)...)
				h.delivers(padded, framed(packet))
			})
		}
	}
}

// The shortest packets: what is behind the IP length is Ethernet's padding
// (contract, Headers in detail), and does not reach the stack.
func TestDeliverShort(t *testing.T) {
	esp := espSA(sa.Transport, testkit.Suite("null-sha256"))
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	for i, short := range [][]byte{
		forge.UDP(nil, netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 2), nil),
		mended(append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 1, 0, 1}, host4b.AsSlice()...)),
	} {
		h.delivers(framed(short), framed(short))
		h.delivers(append(framed(short), make([]byte, 60-14-len(short))...), framed(short))
		h.delivers(framed(once(t, uint64(i)+1, short, esp)), framed(short))
	}
}

// Contract, The transport, step 5: behind a tunnel the inner length counts (TFC); in transport mode
// surplus bytes are payload.
func TestDeliverTFC(t *testing.T) {
	tun, esp := espSA(sa.Tunnel), espSA(sa.Transport)
	for _, offload := range []sa.Offload{sa.Required, sa.Never} {
		tun.Offload, esp.Offload = offload, offload
		h := newHost(t, setup{sas: []*sa.SA{tun, esp}})
		h.delivers(framed(mangled(t, 1, forge.TFC(100), plain4(), tun)), framed(plain4()))
		surplus := append(plain4(), make([]byte, 112)...)
		binary.BigEndian.PutUint16(surplus[2:], uint16(len(surplus)))
		h.delivers(framed(mangled(t, 1, forge.TFC(112), plain4(), esp)), framed(mended(surplus)))
	}
}

// Options and extension headers in front of IPsec stay in transport mode and go
// with a tunnel.
func TestDeliverExtended(t *testing.T) {
	with4 := forge.Options(nil, plain4(), []byte{7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0})
	with6 := forge.Extension(nil, forge.Extension(nil, plain6(), 0, []byte{0, 0, 1, 4, 0, 0, 0, 0}), 60, []byte{0, 0, 5, 2, 0, 0, 1, 0})
	for name, c := range map[string]struct {
		sa     *sa.SA
		packet []byte
	}{
		"IPv4 ESP": {espSA(sa.Transport), with4},
		"IPv4 AH":  {ahSA(sa.Transport), with4},
		"IPv6 ESP": {espSA(sa.Transport, v6), with6},
		"IPv6 AH":  {ahSA(sa.Transport, v6), with6},
		"tunnel 4": {espSA(sa.Tunnel), with4},
		"tunnel 6": {espSA(sa.Tunnel, v6), with6},
	} {
		for _, offload := range []sa.Offload{sa.Required, sa.Never} {
			t.Run(fmt.Sprint(name, offload), func(t *testing.T) {
				c.sa.Offload = offload
				h := newHost(t, setup{sas: []*sa.SA{c.sa}})
				h.delivers(framed(once(t, 1, c.packet, c.sa)), framed(c.packet))
			})
		}
	}
}

// Contract, The transport, step 5 and RFC 3948 section 3.1.2: a NAT has changed an address, which
// the checksum of the inner TCP or UDP did not know. An IPv4 UDP checksum of
// zero stays.
func TestDeliverNAT(t *testing.T) {
	outside := netip.MustParseAddr("198.51.100.99")
	outside6 := netip.MustParseAddr("2001:db8:99::1")
	none := plain4()
	none[26], none[27] = 0, 0
	for name, packet := range map[string][]byte{
		"UDP": plain4(), "TCP": tcp(netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 2)), "UDP without": none,
		"UDP 6": plain6(), "TCP 6": tcp(netip.AddrPortFrom(host6a, 1), netip.AddrPortFrom(host6b, 2)),
	} {
		for _, offload := range []sa.Offload{sa.Required, sa.Never} {
			t.Run(fmt.Sprint(name, offload), func(t *testing.T) {
				esp, from := espSA(sa.Transport, encap, func(s *sa.SA) { s.Offload = offload }), outside
				if packet[0]>>4 == 6 {
					v6(esp)
					from = outside6
				}
				anySrc(esp)
				h := newHost(t, setup{sas: []*sa.SA{esp}})
				want := natted(packet, from)
				p, _ := wire.Addresses(want, 0)
				wire.UpperSum(want, &p)
				if name == "UDP without" && (want[26] != 0 || want[27] != 0) {
					t.Fatal("the model is wrong")
				}
				h.delivers(framed(natted(once(t, 1, packet, esp), from)), framed(want))
			})
		}
	}
}

// natted is a packet from another address.
func natted(packet []byte, from netip.Addr) []byte {
	b := slices.Clone(packet)
	if b[0]>>4 == 4 {
		copy(b[12:], from.AsSlice())
		return mended(b)
	}
	copy(b[8:], from.AsSlice())
	return b
}

// Contract, The transport, step 5, RFC 6040: the tunnel's congestion reaches the packet inside, its
// DSCP stays; where that packet is not ECN-capable it is dropped.
func TestDeliverECN(t *testing.T) {
	const dscp = 63 << 2
	for _, offload := range []sa.Offload{sa.Required, sa.Never} {
		tun := espSA(sa.Tunnel, func(s *sa.SA) { s.Offload = offload })
		for inner := range byte(4) {
			h := newHost(t, setup{sas: []*sa.SA{tun}})
			packet, want := plain4(), plain4()
			packet[1], want[1] = dscp|inner, dscp|3
			mended(packet)
			frame := once(t, 1, packet, tun)
			frame[1] = frame[1]&^3 | 3
			mended(frame)
			if inner == 0 {
				h.drops(framed(frame), ecn)
				if h.window("esp-tunnel").Seen != 1 {
					t.Error("a packet that is dropped for its ECN field moves the window all the same")
				}
				continue
			}
			h.delivers(framed(frame), framed(mended(want)))
		}
	}
}

// Contract, The transport, step 6: fragments that came by different SAs never make a
// packet, wherever in the stack of SAs the difference lies.
func TestFragmentsOfDifferentSAs(t *testing.T) {
	inner, outer, other := espSA(sa.Tunnel), espSA(sa.Tunnel, spi(0x2004)), espSA(sa.Tunnel, spi(0x2005))
	first, later := fragments(plain4(), 7)
	for name, c := range map[string]struct {
		first, later []*sa.SA // innermost first
		whole        bool
	}{
		"the same":           {[]*sa.SA{inner, outer}, []*sa.SA{inner, outer}, true},
		"one in clear":       {[]*sa.SA{inner}, nil, false},
		"another one":        {[]*sa.SA{inner}, []*sa.SA{outer}, false},
		"one fewer outside":  {[]*sa.SA{inner, outer}, []*sa.SA{inner}, false},
		"another outside":    {[]*sa.SA{inner, outer}, []*sa.SA{inner, other}, false},
		"another inside":     {[]*sa.SA{inner, outer}, []*sa.SA{other, outer}, false},
		"in the other order": {[]*sa.SA{inner, outer}, []*sa.SA{outer, inner}, false},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: []*sa.SA{inner, outer, other}}, func(t *testing.T, h *host) {
				sent := func(n uint64, packet []byte, sas []*sa.SA) []byte {
					if len(sas) == 0 {
						return framed(packet)
					}
					return framed(once(t, n, packet, sas...))
				}
				if _, v, r := h.receive(sent(1, first, c.first)); v != transport.Held {
					t.Fatalf("the first one: %s (%s)", v, r)
				}
				_, v, r := h.receive(sent(2, later, c.later))
				if want := map[bool]transport.Verdict{true: transport.Software, false: transport.Held}[c.whole]; v != want {
					t.Errorf("the later one: %s (%s), want %s", v, r, want)
				}
			})
		})
	}
}

// Contract, The transport, step 6: reassembly's clock is the time at which frames were
// received. The tags are the first fragment's.
func TestFragments(t *testing.T) {
	whole := plain4()
	whole[5] = 7 // its identification
	mended(whole)
	first, later := fragments(whole, 7)
	h := newHost(t, setup{})
	held := func(frame []byte) {
		t.Helper()
		if _, v, r := h.receive(frame); v != transport.Held {
			t.Errorf("%s (%s), want it held", v, r)
		}
	}
	held(framed(first))
	h.now = h.now.Add(30 * time.Second)
	held(framed(later)) // of another datagram by now
	h.now = h.now.Add(30*time.Second - 1)
	h.delivers(framed(first, 0x81000064), framed(whole, 0x81000064))
	held(framed(first, 0x81000064))
	h.delivers(framed(later), framed(whole, 0x81000064))
}

// CONTRIBUTING, the frame path: judging what the NIC opened allocates nothing,
// under a policy and a selector.
func TestJudgeNoAllocs(t *testing.T) {
	const n = 64
	anything := selecting(sa.Selector{Protocol: wire.ProtoUDP, DstPorts: sa.Ports{First: 5000, Last: 5000}})
	tun, esp := espSA(sa.Tunnel), espSA(sa.Transport, anything)
	h := newHost(t, setup{sas: []*sa.SA{tun, esp}, policy: []sa.Policy{{Action: sa.Protect, SA: esp.Name}}})
	s := sealer(t, esp, tun)
	var frames [][]byte
	for range n + 2 { // AllocsPerRun runs once more
		frames = append(frames, h.annotate(framed(sealed(t, s, plain4()))))
	}
	h.Judge(frames[0])
	next := 1
	if got := testing.AllocsPerRun(n, func() {
		if _, v, r := h.Judge(frames[next]); v != transport.Deliver {
			t.Fatal(v, r)
		}
		next++
	}); got != 0 {
		t.Errorf("%v allocations a frame, want none", got)
	}
}
