package pipeline_test

import (
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Extension headers as forge.Extension takes them.
var (
	optionsFixed   = []byte{0, 0, 0x1e, 4, 1, 2, 3, 4} // an option that may not change
	optionsMutable = []byte{0, 0, 0x3e, 4, 1, 2, 3, 4} // and one that may
	routeDone      = append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, make([]byte, 16)...)
	routeLeft      = append([]byte{0, 2, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...)
	routeOdd       = []byte{0, 0, 4, 0, 0, 0, 0, 0}
	atomicFragment = []byte{0, 0, 0, 0, 0, 0, 0, 9}
)

func anySource(s *sa.SA) { s.Src = netip.Addr{} }

func extended(packet []byte, proto uint8, header []byte) []byte {
	return forge.Extension(nil, packet, proto, header)
}

// inserted puts an extension header into a sealed IPv6 frame, directly behind
// the IPv6 header.
func inserted(proto uint8, header []byte) func([]byte) []byte {
	return func(f []byte) []byte {
		h := slices.Clone(header)
		h[0], f[14+6] = f[14+6], proto
		addLength(f, 14, len(h))
		return slices.Insert(f, 14+40, h...)
	}
}

// everyTransport are the transport layouts but the unbundled one.
func everyTransport(changes ...change) [][]*sa.SA {
	return [][]*sa.SA{{espSA(sa.Transport, changes...)}, {ahSA(sa.Transport, changes...)}, bundle(sa.Transport, changes...)}
}

// IPv4 options and IPv6 extension headers in front of IPsec, in the outer and
// in the inner packet (contract, Headers in detail).
func TestOptionsAndExtensionHeaders(t *testing.T) {
	six := plain6()
	chain := extended(extended(extended(six, wire.ProtoHopByHop, optionsMutable), wire.ProtoRouting, routeDone), wire.ProtoDestOpts, optionsFixed)
	for _, p := range []struct {
		name   string
		packet []byte
		family []change
	}{
		{"router alert", forge.Options(nil, plain4(), []byte{148, 4, 0, 0}), nil},
		{"record route", forge.Options(nil, plain4(), []byte{7, 7, 4, 0, 0, 0, 0, 1}), nil},
		{"unknown, no-op, end", forge.Options(nil, plain4(), []byte{1, 99, 3, 7, 0, 99, 99, 99}), nil},
		{"hop-by-hop", extended(six, wire.ProtoHopByHop, optionsFixed), []change{v6}},
		{"destination options", extended(six, wire.ProtoDestOpts, optionsMutable), []change{v6}},
		{"routing, none left", extended(six, wire.ProtoRouting, routeDone), []change{v6}},
		{"destination options before routing", extended(extended(six, wire.ProtoDestOpts, optionsFixed), wire.ProtoRouting, routeDone), []change{v6}},
		{"all of them", chain, []change{v6}},
	} {
		for _, sas := range everyTransport(p.family...) {
			alone := frameCase{name: p.name + "/" + sas[0].Name, sas: sas, packet: p.packet, word: 2, reason: status.Verified,
				records: slices.Repeat([]outcome{good}, len(sas))}
			inner := alone
			inner.name += " inner"
			inner.sas, inner.word = append(slices.Clone(sas), espSA(sa.Tunnel)), 6
			inner.records = append(inner.records, good)
			runAll(t, []frameCase{alone, inner})
		}
		clear := frameCase{name: p.name + "/clear inside", sas: []*sa.SA{ahSA(sa.Tunnel, v6)}, packet: p.packet,
			word: 2, reason: status.Verified, records: []outcome{good}}
		runAll(t, []frameCase{clear})
	}
}

// What may change on the way does not break AH, what may not does (contract,
// Headers in detail: AH).
func TestAHMutableFields(t *testing.T) {
	ipv4 := forge.Options(nil, plain4(), []byte{148, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4}) // router alert, record route, end
	chain := extended(extended(plain6(), wire.ProtoHopByHop, optionsMutable), wire.ProtoDestOpts, optionsFixed)
	for _, f := range []struct {
		name   string
		packet []byte
		at     int // in the IP packet
		good   bool
	}{
		{"TOS", ipv4, 1, true}, {"TTL", ipv4, 8, true}, {"checksum", ipv4, 10, true}, {"DF", ipv4, -6, true},
		{"record route data", ipv4, 28, true}, {"identification", ipv4, 4, false}, {"source", ipv4, 12, false},
		{"router alert data", ipv4, 23, false},
		{"end turned no-op", ipv4, 31, false}, {"AH reserved", ipv4, 32 + 2, false}, {"number", ipv4, 32 + 11, false},
		{"ICV", ipv4, 32 + 12, false}, {"payload", ipv4, 32 + 32, false},
		{"traffic class, high", plain6(), 0, true}, {"flow label", plain6(), 3, true}, {"hop limit", plain6(), 7, true},
		{"source 6", plain6(), 23, false}, {"mutable option data", chain, 45, true}, {"mutable option type", chain, 42, false},
		{"fixed option data", chain, 53, false}, {"AH reserved 6", chain, 56 + 3, false},
	} {
		family, at := []change{v6}, f.at
		if f.packet[0]>>4 == 4 {
			family = nil
		}
		flip := func(b []byte) []byte { b[14+at] ^= 1; return b }
		if at < 0 {
			flip = func(b []byte) []byte { b[14-at] ^= 0x40; return b }
		}
		if f.name == "end turned no-op" {
			flip = set(14+at, 1)
		}
		c := frameCase{name: f.name, sas: []*sa.SA{ahSA(sa.Transport, append(family, anySource)...)}, packet: f.packet, spoil: flip,
			word: 2, reason: status.Verified, records: []outcome{good}, noDecap: true}
		if !f.good {
			c.word, c.reason, c.records = 0x00020002, status.AHICV, []outcome{badAH}
		}
		if f.name == "number" {
			c.fix = func(_ int, r *status.Record) { r.Number ^= 1 }
		}
		runAll(t, []frameCase{c})
	}
}

// A routing header with segments left is row 3 for both protocols; another type
// than 0 for AH only, since nobody can predict how it arrives.
func TestRoutingHeaders(t *testing.T) {
	esp, ah := espSA(sa.Transport, v6), ahSA(sa.Transport, v6)
	row3 := []outcome{left(status.RoutingHeader)}
	c := func(name string, a *sa.SA, header []byte) frameCase {
		return frameCase{name: name, sas: []*sa.SA{a}, packet: plain6(), reason: status.RoutingHeader, records: row3,
			spoil: inserted(wire.ProtoRouting, header), fix: shifted(len(header))}
	}
	odd := frameCase{name: "ESP, other type", sas: []*sa.SA{esp}, packet: extended(plain6(), wire.ProtoRouting, routeOdd),
		word: 2, reason: status.Verified, records: []outcome{good}}
	inner := frameCase{name: "inner AH, other type (row 31)", sas: []*sa.SA{ah, espSA(sa.Tunnel)}, packet: plain6(),
		word: 2, reason: status.RoutingHeader, records: []outcome{good, left(status.RoutingHeader)}}
	inner.mangle = mangled(inner.sas[1], func(plain []byte) []byte {
		n := len(plain) - 2 - int(plain[len(plain)-2])
		f := inserted(wire.ProtoRouting, routeOdd)(forge.AppendFrame(nil, slices.Clone(plain[:n])))
		return forge.Payload(f[14:])(plain)
	})
	runAll(t, []frameCase{
		c("ESP, one left", esp, routeLeft), c("AH, one left", ah, routeLeft), c("AH, other type", ah, routeOdd), odd, inner,
	})
}

// shifted corrects a record to n bytes inserted in front of its IPsec header.
func shifted(n int) func(int, *status.Record) {
	return func(_ int, r *status.Record) { r.IPsec += uint16(n); r.Payload += uint16(n) }
}

// A fragment of the outer packet is row 3; a later one has no SPI to look at.
func TestFragments(t *testing.T) {
	for _, a := range []*sa.SA{espSA(sa.Transport), ahSA(sa.Tunnel), espSA(sa.Tunnel, encap)} {
		runAll(t, []frameCase{{name: "first of " + a.Name, sas: []*sa.SA{a}, spoil: set(14+6, 0x20),
			reason: status.Fragment, records: []outcome{left(status.Fragment)}}})
		later := frameCase{sas: []*sa.SA{a}, spoil: set(14+6, 0x20, 5)}
		reason := status.Fragment
		if a.Encap {
			reason = status.NoIPsec // the ports are in the first one
		}
		untouched(t, later.nic(t), later.seal(t).frame, reason)
	}
	six := espSA(sa.Transport, v6)
	first, last := slices.Clone(atomicFragment), slices.Clone(atomicFragment)
	first[3], last[3] = 1, 8
	for _, f := range []struct {
		name   string
		header []byte
	}{{"atomic", atomicFragment}, {"first of 6", first}} {
		runAll(t, []frameCase{{name: f.name, sas: []*sa.SA{six}, packet: plain6(), spoil: inserted(wire.ProtoFragment, f.header),
			reason: status.Fragment, records: []outcome{left(status.Fragment)}, fix: shifted(8)}})
	}
	later := frameCase{sas: []*sa.SA{six}, packet: plain6(), spoil: inserted(wire.ProtoFragment, last)}
	untouched(t, later.nic(t), later.seal(t).frame, status.Fragment)
}

// A fragment inside a tunnel is payload to it, and so is a clear one.
func TestClearFragmentInside(t *testing.T) {
	fragment := set(6, 0x20, 5)(plain4())
	c := frameCase{sas: []*sa.SA{espSA(sa.Tunnel)}, packet: fragment, word: 2, reason: status.Verified, records: []outcome{good}}
	c.check(t)
}

// Payload length 0 is row 3, inside a tunnel row 31.
func TestJumbogram(t *testing.T) {
	esp, tun := espSA(sa.Transport, v6), espSA(sa.Tunnel)
	runAll(t, []frameCase{
		{name: "outer (row 3)", sas: []*sa.SA{esp}, packet: plain6(), spoil: set(14+4, 0, 0),
			reason: status.Jumbogram, records: []outcome{left(status.Jumbogram)}},
		{name: "inner (row 31)", sas: []*sa.SA{esp, tun}, packet: plain6(), mangle: mangled(tun, set(4, 0, 0)),
			word: 2, reason: status.Jumbogram, records: []outcome{good, left(status.Jumbogram)}, noDecap: true,
			fix: func(i int, r *status.Record) {
				if i == 1 { // the packet's end is the payload's
					c := frameCase{sas: []*sa.SA{esp}, packet: plain6()}
					s, _ := outbound.NewSealer(zeros{}, c.sas...)
					b, _ := s.Seal(nil, plain6())
					r.PayloadLen = uint16(len(b) - 40 - 16 - 16)
				}
			}},
	})
}

// What a short frame was padded with is no part of its packet: ESP's end comes
// from the IP length (contract, Headers in detail).
func TestEthernetPadding(t *testing.T) {
	pad := func(n int) func([]byte) []byte {
		return func(f []byte) []byte { return append(f, make([]byte, n)...) }
	}
	small := raw(1, host4a, host4b, 8)
	for _, sas := range [][]*sa.SA{{espSA(sa.Transport)}, {ahSA(sa.Transport)}, {espSA(sa.Tunnel)}, bundle(sa.Tunnel), {espSA(sa.Transport, encap)}} {
		for _, n := range []int{1, 7, 18, 400} {
			runAll(t, []frameCase{{name: sas[0].Name, sas: sas, packet: small, spoil: pad(n), word: 2, reason: status.Verified,
				records: slices.Repeat([]outcome{good}, len(sas))}})
		}
	}
}

// A frame under 60 bytes is padded with zeros before its trailer; the wire
// length tells (contract, Bytes of a delivered frame).
func TestShortFrame(t *testing.T) {
	for n := range 62 {
		frame := slices.Repeat([]byte{0xff}, n)
		sad := pipeline.NewSAD(sa.Profiles[0], 1)
		body, trailer := process(t, sad, pipeline.Options{}, frame)
		if want := max(n, 60); len(body) != want || trailer.WireLen != uint32(n) {
			t.Errorf("%d bytes came out as %d, wire length %d", n, len(body), trailer.WireLen)
		}
		for _, b := range body[n:] {
			if b != 0 {
				t.Fatalf("%d bytes: padding is not zero", n)
			}
		}
	}
}

// The NIC does not look at the outer IPv4 header checksum, at MAC addresses, or
// at the outer UDP checksum (contract, Headers in detail; UDP-ESP).
func TestNotLookedAt(t *testing.T) {
	esp, udp := espSA(sa.Transport), espSA(sa.Tunnel, encap)
	c := func(name string, a *sa.SA, spoil func([]byte) []byte) frameCase {
		return frameCase{name: name, sas: []*sa.SA{a}, spoil: spoil, word: 2, reason: status.Verified, records: []outcome{good}, noDecap: true}
	}
	runAll(t, []frameCase{
		c("IPv4 checksum", esp, set(14+10, 0xde, 0xad)),
		c("MAC addresses", esp, set(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6)),
		c("UDP checksum", udp, set(14+20+6, 0xde, 0xad)),
		c("UDP source port", udp, set(14+20, 0x12, 0x34)),
	})
}

// UDP-ESP in its four layouts, in both families, good and bad (contract,
// UDP-ESP).
func TestUDPESP(t *testing.T) {
	for _, out := range [][]change{nil, {v6}} {
		for _, in := range [][]change{nil, {v6}} {
			packet := plain4()
			if in != nil {
				packet = plain6()
			}
			wrap := func(cs []change) []change { return append(slices.Clone(cs), encap) }
			alone := espSA(sa.Transport, wrap(in)...)
			tunnel := espSA(sa.Tunnel, wrap(out)...)
			plainTunnel := espSA(sa.Tunnel, out...)
			plainTransport := espSA(sa.Transport, in...)
			one := func(name string, a *sa.SA, mode sa.Mode) []frameCase {
				return verdicts(frameCase{name: name, packet: packet}, mode, []*sa.SA{a})
			}
			runAll(t, one("transport", alone, sa.Transport))
			runAll(t, one("tunnel", tunnel, sa.Tunnel))
			runAll(t, nest("transport over encapsulated tunnel", packet, []*sa.SA{plainTransport}, []*sa.SA{tunnel}))
			runAll(t, nest("encapsulated transport over tunnel", packet, []*sa.SA{alone}, []*sa.SA{plainTunnel}))
		}
	}
}

// The trailer's offsets reach 65535 bytes: a packet that ends there is checked,
// a longer one left alone, for all that its frame is there (contract row 3;
// contract, headers in detail). What lies behind the packet does not matter.
func TestHugeFrame(t *testing.T) {
	c := frameCase{sas: []*sa.SA{espSA(sa.Transport)}, spoil: func(f []byte) []byte { return append(f, make([]byte, 70000)...) },
		word: 2, reason: status.Verified, records: []outcome{good}}
	c.check(t)
	carrying := func(n int) frameCase {
		return frameCase{sas: []*sa.SA{espSA(sa.Transport)}, packet: raw(17, host4a, host4b, make([]byte, n)...)}
	}
	const longest = 65535 - 14 - 20 - 8 - 8 - 2 - 16
	last := carrying(longest - 3) // ESP pads to 4
	last.word, last.reason, last.records = 2, status.Verified, []outcome{good}
	last.check(t)

	more := carrying(longest + 1)
	long := more.seal(t).frame
	body, trailer := process(t, last.nic(t), pipeline.Options{}, long)
	if trailer.Word != 0 || trailer.Reason != status.TooLong || trailer.N != 1 || trailer.Records[0].State != status.NotProcessed {
		t.Errorf("a packet up to byte %d: %s %s %+v", len(long), trailer.Word, trailer.Reason, trailer.Records[0])
	}
	sameBytes(t, body, long)
	body, trailer = process(t, last.nic(t), pipeline.Options{}, long[:len(long)-1])
	if trailer.Word != 0x00060002 || trailer.Reason != status.IPLength {
		t.Errorf("a byte less than its packet: %s %s", trailer.Word, trailer.Reason)
	}
	sameBytes(t, body, long[:len(long)-1])

	for end, reason := range map[int]status.Reason{65535: status.Verified, 65536: status.TooLong} { // where only AH ends
		const headers = 14 + 20 + 32
		c := frameCase{sas: []*sa.SA{ahSA(sa.Transport)}, packet: raw(17, host4a, host4b, make([]byte, end-headers)...)}
		if _, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame); trailer.WireLen != uint32(end) || trailer.Reason != reason {
			t.Errorf("a packet up to byte %d of %d: %s, want %s", trailer.WireLen, end, trailer.Reason, reason)
		}
	}
}
