package conformance

import (
	"net/netip"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// The addresses of all frames, from the blocks for documentation (RFC 5737).
var (
	hostA    = netip.MustParseAddr("198.51.100.1")
	hostB    = netip.MustParseAddr("203.0.113.1")
	gatewayA = netip.MustParseAddr("192.0.2.1")
	gatewayB = netip.MustParseAddr("192.0.2.2")
)

// hello is the packet that most frames carry.
func hello() []byte {
	return forge.UDP(nil, netip.AddrPortFrom(hostA, 40000), netip.AddrPortFrom(hostB, 9), []byte("a datagram between two hosts"))
}

// toNATPort is a datagram to UDP 4500 that is not ESP, or has no SA.
func toNATPort(payload ...byte) []byte {
	return forge.UDP(nil, netip.AddrPortFrom(hostA, 40000), netip.AddrPortFrom(hostB, sa.EncapPort), payload)
}

func newSetup(name, prof string) (Setup, *builder) {
	return Setup{Name: name, Profile: profile(prof)}, &builder{sas: map[string]*sa.SA{}}
}

// offload adds single SAs to the NIC.
func (l *Setup) offload(sas ...*sa.SA) {
	for _, s := range sas {
		l.Bundles = append(l.Bundles, []*sa.SA{s})
	}
}

// usual offloads an ESP and an AH SA for each portion, and makes two ESP SAs that the NIC
// does not get.
func usual(l *Setup, k *builder) {
	l.offload(
		k.add("gateway", sa.ESP, sa.Tunnel, "aes128gcm16", nil),
		k.add("gateway-ah", sa.AH, sa.Tunnel, "sha256", nil),
		k.add("host", sa.ESP, sa.Transport, "aes128gcm16", nil),
		k.add("host-ah", sa.AH, sa.Transport, "sha256", nil),
	)
	k.add("strange-gateway", sa.ESP, sa.Tunnel, "aes128gcm16", nil)
	k.add("strange-host", sa.ESP, sa.Transport, "aes128gcm16", nil)
}

// plain are the frames that the NIC leaves alone, and single portions.
func plain() Setup {
	l, k := newSetup("plain", "full")
	usual(&l, k)
	l.offload(k.add("nat", sa.ESP, sa.Transport, "aes128gcm16", func(s *sa.SA) { s.Encap = true }))
	k.add("strange-nat", sa.ESP, sa.Transport, "aes128gcm16", func(s *sa.SA) { s.Encap = true })

	l.add(Case{Row: "1", Title: "an ARP request", Frame: arp(), Reason: status.NotIP})
	l.expect("1", "a datagram in the clear", hello(), 0, status.NoIPsec)
	l.expect("2", "ESP, no such SA", k.seal(hello(), "strange-gateway"), 0, status.NoSA)
	l.expect("3", "a fragment of an ESP packet", fragment(k.seal(hello(), "host")), 0, status.Fragment)
	l.expect("4", "UDP 4500: IKE", toNATPort(0, 0, 0, 0, 1, 2, 3, 4), 0, status.IKE)
	l.expect("4", "UDP 4500: keep-alive", toNATPort(0xff), 0, status.KeepAlive)
	l.expect("4", "UDP 4500: too short for ESP", toNATPort(1, 2, 3), 0, status.UDPTooShort)
	l.expect("4", "UDP 4500: ESP, no such SA", k.seal(hello(), "strange-nat"), 0, status.UDPNoSA)
	l.expect("5", "transport ESP", k.seal(hello(), "host"), one, status.Verified)
	l.expect("5", "transport AH", k.seal(hello(), "host-ah"), one, status.Verified)
	l.expect("5", "transport ESP in UDP", k.seal(hello(), "nat"), one, status.Verified)
	l.expect("6", "tunnel ESP", k.seal(hello(), "gateway"), one, status.Verified)
	l.expect("6", "tunnel AH", k.seal(hello(), "gateway-ah"), one, status.Verified)
	l.expect("7", "transport AH, wrong ICV", corrupt(k.seal(hello(), "host-ah")), word(one, status.TransportAHAuthFailed), status.AHICV)
	l.expect("8", "transport ESP, wrong ICV", corrupt(k.seal(hello(), "host")), word(one, status.TransportESPAuthFailed), status.ESPICV)
	l.expect("9", "tunnel AH, wrong ICV", corrupt(k.seal(hello(), "gateway-ah")), word(one, status.TunnelAHAuthFailed), status.AHICV)
	l.expect("10", "tunnel ESP, wrong ICV", corrupt(k.seal(hello(), "gateway")), word(one, status.TunnelESPAuthFailed), status.ESPICV)
	return l
}

// layers are frames with both portions.
func layers() Setup {
	l, k := newSetup("layers", "full")
	usual(&l, k)
	l.expect("11", "ESP in ESP", k.seal(hello(), "host", "gateway"), both, status.Verified)
	l.expect("11", "AH in AH", k.seal(hello(), "host-ah", "gateway-ah"), both, status.Verified)
	l.expect("12", "tunnel good, transport AH wrong", k.seal(corrupt(k.seal(hello(), "host-ah")), "gateway"), word(both, status.TransportAHAuthFailed), status.AHICV)
	l.expect("13", "tunnel good, transport ESP wrong", k.seal(corrupt(k.seal(hello(), "host")), "gateway"), word(both, status.TransportESPAuthFailed), status.ESPICV)
	l.expect("14", "tunnel ESP wrong around good transport", corrupt(k.seal(hello(), "host", "gateway")), word(one, status.TunnelESPAuthFailed), status.ESPICV)
	l.expect("14", "tunnel AH wrong around good transport", corrupt(k.seal(hello(), "host", "gateway-ah")), word(one, status.TunnelAHAuthFailed), status.AHICV)
	l.expect("15", "tunnel good, inner ESP has no SA", k.seal(hello(), "strange-host", "gateway"), one, status.NoSA)
	l.expect("16", "outer ESP has no SA, the inner has", k.seal(hello(), "host", "strange-gateway"), 0, status.NoSA)
	again := k.seal(hello(), "host", "gateway")
	l.expect("25", "a frame ...", again, both, status.Verified)
	l.expect("25", "... and the same again (replay)", again, both, status.Verified)
	return l
}

// bundles are AH and ESP on one portion.
func bundles() Setup {
	l, k := newSetup("ah-esp", "full")
	usual(&l, k)
	l.Bundles = append(l.Bundles, k.bundle("pair", sa.Transport), k.bundle("gate", sa.Tunnel))
	wrongESP := func(name string) []byte {
		return k.seal(corrupt(k.seal(hello(), name+"-esp")), name+"-ah-alone")
	}
	alone := func(name string) { // the bundle's AH applied by itself, over an ESP packet
		a := *k.sas[name+"-ah"]
		a.Bundle, a.Mode = "", sa.Transport
		k.sas[name+"-ah-alone"] = &a
	}
	alone("pair")
	alone("gate")
	l.expect("18", "transport AH+ESP", k.seal(hello(), "pair-esp", "pair-ah"), one, status.Verified)
	l.expect("18", "tunnel AH+ESP", k.seal(hello(), "gate-esp", "gate-ah"), one, status.Verified)
	l.expect("18", "transport AH, ESP, not bundled", k.seal(hello(), "host", "host-ah"), one, status.Verified)
	l.expect("19", "transport AH+ESP, AH wrong", corrupt(k.seal(hello(), "pair-esp", "pair-ah")), word(one, status.TransportAHAuthFailed), status.AHICV)
	l.expect("19", "tunnel AH+ESP, AH wrong", corrupt(k.seal(hello(), "gate-esp", "gate-ah")), word(one, status.TunnelAHAuthFailed), status.AHICV)
	l.expect("20", "transport AH+ESP, ESP wrong", wrongESP("pair"), word(one, status.TransportESPAuthFailed), status.ESPICV)
	l.expect("20", "tunnel AH+ESP, ESP wrong", wrongESP("gate"), word(one, status.TunnelESPAuthFailed), status.ESPICV)
	l.expect("22", "the bundle's ESP without its AH", k.seal(hello(), "pair-esp"), word(one, status.InvalidProtocol), status.BundleMismatch)
	l.expect("22", "the bundle's AH over another ESP", k.seal(hello(), "host", "pair-ah-alone"), word(one, status.InvalidProtocol), status.BundleMismatch)
	l.expect("33", "tunnel, transport AH+ESP inside", k.seal(hello(), "pair-esp", "pair-ah", "gateway"), both, status.Verified)
	l.expect("33", "tunnel, transport AH+ESP, AH wrong", k.seal(corrupt(k.seal(hello(), "pair-esp", "pair-ah")), "gateway"), word(both, status.TransportAHAuthFailed), status.AHICV)
	l.expect("33", "tunnel, transport AH+ESP, ESP wrong", k.seal(wrongESP("pair"), "gateway"), word(both, status.TransportESPAuthFailed), status.ESPICV)
	return l
}

// wrongProtocol adds an ESP SA under the SPI of an AH one.
func wrongProtocol(k *builder) {
	k.add("imposter", sa.ESP, sa.Transport, "aes128gcm16", func(s *sa.SA) { s.SPI = k.sas["host-ah"].SPI })
}

// malformed are single portions that fail for a reason other than their ICV.
func malformed() Setup {
	l, k := newSetup("malformed", "full")
	usual(&l, k)
	wrongProtocol(k)
	syntax, short := word(one, status.InvalidPacketSyntax), []byte{0x45, 0, 0, 22, 0, 0, 0, 0, 64, wire.ProtoESP, 0, 0}
	short = append(append(append(short, hostA.AsSlice()...), hostB.AsSlice()...), 0, 0)
	truncated := k.seal(hello(), "gateway")
	l.expect("22", "ESP under the SPI of an AH SA", k.seal(hello(), "imposter"), word(one, status.InvalidProtocol), status.ProtocolMismatch)
	l.expect("23", "the frame ends before its IP length", truncated[:len(truncated)-4], syntax, status.IPLength)
	l.expect("23", "ESP no multiple of its block", cut(k.seal(hello(), "gateway"), 3), syntax, status.ESPLength)
	l.expect("23", "AH length that its ICV cannot have", wrongAHLength(k.seal(hello(), "host-ah")), syntax, status.AHLength)
	l.expect("23", "ESP pad length beyond the payload", k.mangle(hello(), forge.PadLength(255), "host"), syntax, status.PadLength)
	l.expect("23", "an IPv4 option that AH cannot read", wrongOption(k), syntax, status.OptionSyntax)
	l.expect("23b", "the packet ends inside its SPI", short, 0, status.SPIOutside)
	l.expect("24", "transport ESP, pad bytes wrong", k.mangle(hello(), forge.ZeroPad, "host"), word(one, status.GenericError), status.PadBytes)
	l.expect("24", "tunnel ESP, pad bytes wrong", k.mangle(hello(), forge.ZeroPad, "gateway"), word(one, status.GenericError), status.PadBytes)
	return l
}

// inside are good tunnels with something unusual in them.
func inside() Setup {
	l, k := newSetup("inside", "full")
	usual(&l, k)
	wrongProtocol(k)
	encap := func(s *sa.SA) { s.Encap = true }
	l.offload(
		k.add("second-tunnel", sa.ESP, sa.Tunnel, "aes128gcm16", func(s *sa.SA) { s.Src, s.Dst = hostA, hostB }),
		k.add("nat", sa.ESP, sa.Transport, "aes128gcm16", encap),
		k.add("nat-gateway", sa.ESP, sa.Tunnel, "aes128gcm16", encap),
	)
	l.expect("28", "tunnel, transport of the other protocol", k.seal(hello(), "imposter", "gateway"), word(both, status.InvalidProtocol), status.ProtocolMismatch)
	l.expect("28", "tunnel, transport ESP of impossible length", k.seal(cut(k.seal(hello(), "host"), 3), "gateway"), word(both, status.InvalidPacketSyntax), status.ESPLength)
	l.expect("28", "tunnel, transport pad bytes wrong", k.seal(k.mangle(hello(), forge.ZeroPad, "host"), "gateway"), word(both, status.GenericError), status.PadBytes)
	l.expect("29", "a tunnel inside the tunnel", k.seal(hello(), "second-tunnel", "gateway"), one, status.InnerTunnelSA)
	l.expect("30", "transport ESP over AH", k.seal(hello(), "host-ah", "host"), one, status.Verified)
	l.expect("31", "tunnel, inner ESP is a fragment", k.seal(fragment(k.seal(hello(), "host")), "gateway"), one, status.Fragment)
	l.expect("31", "ESP in UDP inside a tunnel in UDP", k.seal(hello(), "nat", "nat-gateway"), one, status.EncapTwice)
	l.expect("11", "ESP in UDP inside a plain tunnel", k.seal(hello(), "nat", "gateway"), both, status.Verified)
	l.expect("11", "transport ESP inside a tunnel in UDP", k.seal(hello(), "host", "nat-gateway"), both, status.Verified)
	l.expect("32", "a dummy packet", k.mangle(hello(), forge.NextHeader(wire.ProtoNoNext), "gateway"), one, status.Dummy)
	l.expect("32", "the tunnel carries no IP packet", k.mangle(hello(), forge.Payload([]byte("no IP")), "gateway"), one, status.InnerNotIP)
	return l
}

// undecided is a NIC that does not know the modes of its SAs.
func undecided() Setup {
	l, k := newSetup("mode-auto", "full")
	usual(&l, k)
	l.offload(k.add("second-tunnel", sa.ESP, sa.Tunnel, "aes128gcm16", func(s *sa.SA) { s.Src, s.Dst = hostA, hostB }))
	for _, b := range l.Bundles {
		auto := *b[0] // the peer knows
		auto.Mode, b[0] = sa.Auto, &auto
	}
	failed := word(one, status.GenericError)
	l.expect("34", "mode auto: transport ESP", k.seal(hello(), "host"), one, status.Verified)
	l.expect("34", "mode auto: transport AH", k.seal(hello(), "host-ah"), one, status.Verified)
	l.expect("34", "mode auto: tunnel ESP", k.seal(hello(), "gateway"), one, status.Verified)
	l.expect("34", "mode auto: tunnel AH", k.seal(hello(), "gateway-ah"), one, status.Verified)
	l.expect("34", "mode auto: ESP in ESP", k.seal(hello(), "host", "gateway"), both, status.Verified)
	l.expect("34", "mode auto: AH over ESP", k.seal(hello(), "host", "host-ah"), one, status.Verified)
	l.expect("34", "mode auto: a tunnel inside the tunnel", k.seal(hello(), "second-tunnel", "gateway"), one, status.InnerTunnelSA)
	l.expect("35", "mode auto: transport ESP, wrong ICV", corrupt(k.seal(hello(), "host")), failed, status.ESPICV)
	l.expect("35", "mode auto: tunnel AH, wrong ICV", corrupt(k.seal(hello(), "gateway-ah")), failed, status.AHICV)
	l.expect("35", "mode auto: tunnel good, ESP inside wrong", k.seal(corrupt(k.seal(hello(), "host")), "gateway"), word(both, status.GenericError), status.ESPICV)
	return l
}

// noCombined is a NIC without TransportTunnelCombined.
func noCombined() Setup {
	l, k := newSetup("mlx5-crypto", "mlx5-crypto")
	l.offload(k.add("gateway", sa.ESP, sa.Tunnel, "aes128gcm16", nil), k.add("host", sa.ESP, sa.Transport, "aes128gcm16", nil))
	l.expect("17", "both portions, NIC takes one", k.seal(hello(), "host", "gateway"), one, status.NoCombined)
	return l
}

// noAHESP is a NIC without AhEspCombined.
func noAHESP() Setup {
	l, k := newSetup("ixgbe-82599", "ixgbe-82599")
	l.offload(k.add("host", sa.ESP, sa.Transport, "aes128gcm16", nil), k.add("host-ah", sa.AH, sa.Transport, "aes128gmac", nil))
	l.expect("21", "AH+ESP, NIC takes one of them", k.seal(hello(), "host", "host-ah"), 0, status.NoAHESP)
	l.expect("3", "IPv4 options, NIC takes none", k.seal(forge.Options(nil, hello(), []byte{148, 4, 0, 0}), "host"), 0, status.IPv4Options)
	return l
}

// pressure is a NIC that asks for SAs to be deleted.
func pressure() Setup {
	l, k := newSetup("table-full", "full")
	usual(&l, k)
	l.Pressure = true
	l.expect("26", "good, the SA table full", k.seal(hello(), "gateway"), one|status.SADeleteReq, status.Verified)
	l.expect("26", "wrong ICV, the SA table full", corrupt(k.seal(hello(), "host")), word(one|status.SADeleteReq, status.TransportESPAuthFailed), status.ESPICV)
	l.expect("26", "a fragment, the SA table full", fragment(k.seal(hello(), "host")), status.SADeleteReq, status.Fragment)
	l.expect("2", "no such SA, the SA table full", k.seal(hello(), "strange-host"), 0, status.NoSA)
	return l
}

// deleted is a NIC whose SA was deleted again.
func deleted() Setup {
	l, k := newSetup("deleted", "full")
	usual(&l, k)
	l.Delete = []string{"gateway"}
	l.expect("27", "the SA has been deleted", k.seal(hello(), "gateway"), 0, status.SADeleted)
	return l
}

// switchedOff is a NIC with the offload of ESP switched off.
func switchedOff() Setup {
	l, k := newSetup("esp-off", "full")
	usual(&l, k)
	l.ESPOff = true
	l.expect("3", "transport ESP, switched off", k.seal(hello(), "host"), 0, status.ProtocolOff)
	l.expect("3", "AH+ESP, one of them switched off", k.seal(hello(), "host", "host-ah"), 0, status.ProtocolOff)
	l.expect("16", "tunnel ESP switched off, AH inside", k.seal(hello(), "host-ah", "gateway"), 0, status.ProtocolOff)
	l.expect("31", "tunnel AH good, ESP inside switched off", k.seal(hello(), "host", "gateway-ah"), one, status.ProtocolOff)
	return l
}

// inactive is a NIC whose receive offload has not been activated.
func inactive() Setup {
	l, k := newSetup("inactive", "full")
	usual(&l, k)
	l.Inactive = true
	l.expect("3", "receive offload is not active", k.seal(hello(), "gateway"), 0, status.OffloadInactive)
	return l
}

// arp is a request for hostB.
func arp() []byte {
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6}, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1)
	f = append(append(f, hostA.AsSlice()...), 0, 0, 0, 0, 0, 0)
	return append(f, hostB.AsSlice()...)
}

// fragment sets "more fragments" in an IPv4 header.
func fragment(packet []byte) []byte {
	const more = 0x20
	packet[6] |= more
	return packet
}

// wrongAHLength makes an AH after a plain IPv4 header four words longer.
func wrongAHLength(packet []byte) []byte {
	packet[20+1] += 4
	return packet
}

// wrongOption is an AH packet whose router alert option claims a length of 1.
func wrongOption(k *builder) []byte {
	packet := k.seal(forge.Options(nil, hello(), []byte{148, 4, 0, 0}), "host-ah")
	packet[21] = 1
	return packet
}
