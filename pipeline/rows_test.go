package pipeline_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
	"tapsec/wire"
)

// mangled is the mangle map of one SA.
func mangled(a *sa.SA, m forge.Mangle) map[*sa.SA]forge.Mangle { return map[*sa.SA]forge.Mangle{a: m} }

// set writes bytes at an offset, of a frame or of what is about to be sealed.
func set(at int, b ...byte) func([]byte) []byte {
	return func(x []byte) []byte {
		copy(x[at:], b)
		return x
	}
}

// raw is an IP packet with any protocol and payload.
func raw(proto uint8, src, dst netip.Addr, payload ...byte) []byte {
	b := forge.UDP(nil, netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 1), nil)
	if src.Is4() {
		b = append(b[:20], payload...)
		b[9] = proto
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], wire.Checksum(0, b[:20]))
		return b
	}
	b = append(b[:40], payload...)
	b[6] = proto
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

func ethernet(etherType uint16, payload ...byte) []byte {
	b := append(make([]byte, 12), byte(etherType>>8), byte(etherType))
	return append(b, payload...)
}

// Contract row 1: no IPsec, or nothing that the parser is to understand.
func TestRow1(t *testing.T) {
	ip4 := func(change func([]byte) []byte) []byte { return forge.AppendFrame(nil, change(plain4())) }
	ip6 := func(p []byte) []byte { return forge.AppendFrame(nil, p) }
	c := frameCase{sas: []*sa.SA{espSA(sa.Transport)}}
	esp := c.seal(t).frame
	late := slices.Concat([]byte{wire.ProtoHopByHop, 0, 0, 0, 0, 0, 0, 0, wire.ProtoESP, 0, 1, 4, 0, 0, 0, 0}, esp[34:])
	for _, f := range []struct {
		name   string
		frame  []byte
		reason status.Reason
	}{
		{"nothing", nil, status.NotIP},
		{"half a header", make([]byte, 13), status.NotIP},
		{"ARP", ethernet(0x0806, make([]byte, 46)...), status.NotIP},
		{"LLC", ethernet(100, esp[14:]...), status.NotIP},
		{"PPPoE", ethernet(0x8864, esp[14:]...), status.NotIP},
		{"MPLS", ethernet(0x8847, esp[14:]...), status.NotIP},
		{"three tags", forge.AppendFrame(nil, esp[14:], 0x81000001, 0x81000002, 0x81000003), status.NotIP},
		{"half a tag", append(make([]byte, 12), 0x81, 0, 0), status.NotIP},
		{"no packet", ethernet(0x0800), status.BadIPHeader},
		{"half an IPv4 header", ethernet(0x0800, plain4()[:19]...), status.BadIPHeader},
		{"half an IPv6 header", ethernet(0x86dd, plain6()[:39]...), status.BadIPHeader},
		{"IPv6 as IPv4", ethernet(0x0800, plain6()...), status.BadIPHeader},
		{"IPv4 as IPv6", ethernet(0x86dd, plain4()...), status.BadIPHeader},
		{"IHL 4", ip4(set(0, 0x44)), status.BadIPHeader},
		{"IHL beyond the frame", ethernet(0x0800, set(0, 0x4f)(plain4()[:59])...), status.BadIPHeader},
		{"total length below the header", ip4(set(2, 0, 19)), status.BadIPHeader},
		{"UDP", forge.AppendFrame(nil, plain4()), status.NoIPsec},
		{"UDP over IPv6", forge.AppendFrame(nil, plain6()), status.NoIPsec},
		{"too short for UDP", forge.AppendFrame(nil, raw(wire.ProtoUDP, host4a, host4b, 0, 1, 0x11)), status.NoIPsec},
		{"ESP in IP in IP", forge.AppendFrame(nil, raw(wire.ProtoIPv4, gw4a, gw4b, esp[14:]...)), status.NoIPsec},
		{"GRE", forge.AppendFrame(nil, raw(47, host4a, host4b, 0, 0, 8, 0)), status.NoIPsec},
		{"next header 59", forge.AppendFrame(nil, raw(wire.ProtoNoNext, host6a, host6b, 1, 2)), status.NoIPsec},
		{"unknown header", forge.AppendFrame(nil, raw(135, host6a, host6b, esp[34:]...)), status.NoIPsec},
		{"extension header beyond the packet", ip6(raw(wire.ProtoDestOpts, host6a, host6b, 50, 9, 0, 0, 0, 0, 0, 0)), status.BadIPHeader},
		{"hop-by-hop behind another", ip6(raw(wire.ProtoRouting, host6a, host6b, late...)), status.BadIPHeader},
	} {
		t.Run(f.name, func(t *testing.T) { untouched(t, c.nic(t), f.frame, f.reason) })
	}
}

// untouched asserts that a frame comes back as it came, with the word 0, no
// record and that reason, in both forms.
func untouched(t *testing.T, sad *pipeline.SAD, frame []byte, reason status.Reason) {
	t.Helper()
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		body, trailer := process(t, sad, pipeline.Options{Form: form}, frame)
		compare(t, trailer, status.Trailer{
			Reason: reason, WireLen: uint32(len(frame)), Ordinal: 1, Received: received.UnixNano(),
		})
		sameBytes(t, body, padded(slices.Clone(frame)))
	}
}

// Contract row 2: no SA matches.
func TestRow2(t *testing.T) {
	other := netip.MustParseAddr("203.0.113.9")
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport)
	alone := func(name string, sealed, offloaded *sa.SA, reason status.Reason) frameCase {
		return frameCase{name: name, sas: []*sa.SA{sealed}, absent: []*sa.SA{sealed}, also: []*sa.SA{offloaded}, reason: reason}
	}
	runAll(t, []frameCase{
		alone("ESP, other SPI", esp, espSA(sa.Transport, spi(7)), status.NoSA),
		alone("AH, other SPI", ah, ahSA(sa.Transport, spi(7)), status.NoSA),
		alone("other destination", esp, espSA(sa.Transport, between(host4a, other)), status.AddressMismatch),
		alone("other source", ah, ahSA(sa.Transport, between(other, host4b)), status.AddressMismatch),
		alone("other family", esp, espSA(sa.Transport, v6), status.AddressMismatch),
		alone("plain ESP on an encapsulated SA", esp, espSA(sa.Transport, encap), status.EncapMismatch),
		{name: "nothing offloaded", sas: []*sa.SA{esp}, absent: []*sa.SA{esp}, reason: status.NoSA},
	})
}

// The most specific SA wins, and an AH and an ESP SA may share SPI and
// destination (contract, SA lookup).
func TestLookup(t *testing.T) {
	any := between(netip.Addr{}, netip.Addr{})
	dst := between(netip.Addr{}, host4b)
	both := between(host4a, host4b)
	wrongKey := func(s *sa.SA) { s.EncryptionKey = testkit.Key(99, s.EncryptionKey.Len()) }
	name := func(n string) change { return func(s *sa.SA) { s.Name = n } }
	right := func(changes ...change) *sa.SA { return espSA(sa.Transport, changes...) }
	wrong := func(changes ...change) *sa.SA {
		return espSA(sa.Transport, append(changes, wrongKey, name("wrong"))...)
	}
	one := func(what string, sealed *sa.SA, also ...*sa.SA) frameCase {
		return frameCase{
			name: what, sas: []*sa.SA{sealed}, also: also,
			word: 2, reason: status.Verified, records: []outcome{good},
		}
	}
	sameSPI := ahSA(sa.Transport, spi(0x1001))
	runAll(t, []frameCase{
		one("destination and source before destination", right(both), wrong(dst)),
		one("destination and source before neither", right(both), wrong(any)),
		one("destination before neither", right(dst), wrong(any)),
		one("neither", right(any)),
		one("another source is no match", right(dst), wrong(between(host4b, host4b))),
		one("ESP beside AH", right(both), sameSPI),
		one("AH beside ESP", sameSPI, right(both)),
		one("encapsulated beside plain", right(both), wrong(encap, any)),
	})
	c := one("the more specific one even where it fails", right(dst), wrong(both))
	c.word, c.reason, c.records = 0x00030002, status.ESPICV, []outcome{badESP}
	c.fix = func(_ int, r *status.Record) { r.Handle = 2 }
	t.Run(c.name, func(t *testing.T) { c.check(t) })
}

// Two inbound SAs during rekeying, same endpoints: each takes its own frames.
func TestRekeying(t *testing.T) {
	before, after := espSA(sa.Tunnel, spi(0x3001)), espSA(sa.Tunnel, spi(0x3002))
	for _, a := range []*sa.SA{before, after} {
		c := frameCase{
			sas: []*sa.SA{a}, also: slices.DeleteFunc([]*sa.SA{before, after}, func(b *sa.SA) bool { return a == b }),
			word: 2, reason: status.Verified, records: []outcome{good},
		}
		c.check(t)
	}
}

// Contract row 4: what else comes to UDP port 4500.
func TestRow4(t *testing.T) {
	c := frameCase{sas: []*sa.SA{espSA(sa.Transport, encap)}}
	spiBytes := []byte{0, 0, 0x10, 1}
	port := func(dst uint16, payload ...byte) []byte {
		return forge.AppendFrame(nil, forge.UDP(nil, netip.AddrPortFrom(host4a, 999), netip.AddrPortFrom(host4b, dst), payload))
	}
	long := make([]byte, 40)
	ike := port(4500, long...)
	noLength := set(14+20+4, 0, 0)(c.seal(t).frame)
	tiny := set(14+20+4, 0, 7)(c.seal(t).frame)
	unknown := port(4500, append([]byte{0, 0, 0x10, 9}, long...)...)
	for _, f := range []struct {
		name   string
		frame  []byte
		reason status.Reason
	}{
		{"IKE", ike, status.IKE},
		{"four zero bytes", port(4500, 0, 0, 0, 0), status.IKE},
		{"keep-alive", port(4500, 0xff), status.KeepAlive},
		{"one other byte", port(4500, 0xfe), status.UDPTooShort},
		{"no byte", port(4500), status.UDPTooShort},
		{"seven bytes", port(4500, append(spiBytes, 0, 0, 1)...), status.UDPTooShort},
		{"UDP length below its header", tiny, status.UDPTooShort},
		{"unknown SPI", unknown, status.UDPNoSA},
		{"another port", port(4501, append(spiBytes, long...)...), status.NoIPsec},
		{"UDP length 0 (row 23b)", noLength, status.SPIOutside},
	} {
		t.Run(f.name, func(t *testing.T) { untouched(t, c.nic(t), f.frame, f.reason) })
	}
	t.Run("eight bytes are row 23", func(t *testing.T) {
		_, trailer := process(t, c.nic(t), pipeline.Options{}, port(4500, append(spiBytes, 0, 0, 0, 1)...))
		if trailer.Word != 0x00060002 || trailer.Reason != status.ESPLength {
			t.Errorf("word %s, %s", trailer.Word, trailer.Reason)
		}
	})
	plain := espSA(sa.Transport)
	wrapped := espSA(sa.Transport, encap)
	behindNAT := func(s *sa.SA) { s.Encap, s.EncapDst = true, 19765 }
	runAll(t, []frameCase{{ // an SPI may begin like a keep-alive
		name: "SPI 0xff000001", sas: []*sa.SA{espSA(sa.Transport, encap, spi(0xff000001))}, word: 2, reason: status.Verified, records: []outcome{good},
	}, {
		name: "from port 4500 to a client behind a NAT", sas: []*sa.SA{espSA(sa.Transport, behindNAT)}, word: 2, reason: status.Verified, records: []outcome{good},
	}, {
		name: "UDP-ESP of a plain SA", profile: "full", // autoNIC takes it, see TestAutoInUDP
		sas: []*sa.SA{wrapped}, absent: []*sa.SA{wrapped}, also: []*sa.SA{plain}, reason: status.UDPNoSA,
	}})
}

// Contract rows 15 to 17, 29 and 31: what lies inside a good tunnel and is left
// alone; rows 16 and 30: what is not looked for.
func TestInsideATunnel(t *testing.T) {
	esp, ah, tun := espSA(sa.Transport), ahSA(sa.Transport), espSA(sa.Tunnel)
	inTunnel := func(name string, inner *sa.SA, reason status.Reason, records ...outcome) frameCase {
		return frameCase{
			name: name, sas: []*sa.SA{inner, tun}, word: 2, reason: reason, records: append([]outcome{good}, records...),
		}
	}
	with := func(c frameCase, more func(*frameCase)) frameCase { more(&c); return c }
	noAH := func(s *pipeline.SAD) { s.Switch(false, true) }
	innerTunnel := espSA(sa.Tunnel, spi(0x2009), between(host4a, host4b))
	udp, udpTun := espSA(sa.Transport, encap), espSA(sa.Tunnel, encap)
	later := set(6, 0, 1)
	runAll(t, []frameCase{
		with(inTunnel("row 15", esp, status.NoSA), func(c *frameCase) { c.absent = []*sa.SA{esp} }),
		with(inTunnel("row 15, AH", ah, status.NoSA), func(c *frameCase) { c.absent = []*sa.SA{ah} }),
		{name: "row 16", sas: []*sa.SA{esp, tun}, absent: []*sa.SA{tun}, reason: status.NoSA},
		with(inTunnel("row 17", esp, status.NoCombined, left(status.NoCombined)), func(c *frameCase) { c.profile = "mlx5-crypto" }),
		inTunnel("row 29", innerTunnel, status.InnerTunnelSA, left(status.InnerTunnelSA)),
		{name: "row 30, AH under ESP", sas: []*sa.SA{ah, esp}, word: 2, reason: status.Verified, records: []outcome{good}},
		{name: "row 30, tunnel under transport", sas: []*sa.SA{espSA(sa.Tunnel, between(host4a, host4b)), esp},
			word: 2, reason: status.Verified, records: []outcome{good}},
		with(inTunnel("row 31, first fragment", esp, status.Fragment, left(status.Fragment)),
			func(c *frameCase) { c.mangle = mangled(tun, set(6, 0x20, 0)) }),
		with(inTunnel("row 31, later fragment", esp, status.Fragment), func(c *frameCase) { c.mangle = mangled(tun, later) }),
		with(inTunnel("row 31, switched off", ah, status.ProtocolOff, left(status.ProtocolOff)),
			func(c *frameCase) { c.prepare = noAH }),
		{name: "row 31, encapsulated twice", sas: []*sa.SA{udp, udpTun}, word: 2, reason: status.EncapTwice,
			records: []outcome{good, left(status.EncapTwice)}},
		{name: "row 31, no room for an SPI", sas: []*sa.SA{tun}, packet: raw(wire.ProtoESP, host4a, host4b, 0, 0, 0x10),
			word: 2, reason: status.SPIOutside, records: []outcome{good}},
		{name: "row 31, no room for AH's SPI", sas: []*sa.SA{tun}, packet: raw(wire.ProtoAH, host4a, host4b, 0, 0, 0, 0, 0, 0, 0x10),
			word: 2, reason: status.SPIOutside, records: []outcome{good}},
		{name: "row 31, AH+ESP with one off", sas: append(bundle(sa.Transport), tun), prepare: noAH,
			word: 2, reason: status.ProtocolOff, records: []outcome{good, left(status.ProtocolOff), left(status.ProtocolOff)}},
		{name: "row 4 inside", sas: []*sa.SA{tun}, packet: forge.UDP(nil, netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 4500), make([]byte, 30)),
			word: 2, reason: status.Verified, records: []outcome{good}},
	})
}

// Contract row 21, and its twin without an offloaded ESP SA, where only the AH
// is checked (contract, Bundles).
func TestRow21(t *testing.T) {
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport, testkit.Suite("aes128gmac"))
	lacks := left(status.NoAHESP)
	runAll(t, []frameCase{
		{name: "row 21", sas: []*sa.SA{esp, ah}, profile: "ixgbe-82599", reason: status.NoAHESP, records: []outcome{lacks, lacks}},
		{name: "AH alone is checked", sas: []*sa.SA{esp, ah}, absent: []*sa.SA{esp}, profile: "ixgbe-82599",
			word: 2, reason: status.Verified, records: []outcome{good}},
		{name: "with the capability", sas: []*sa.SA{esp, ah}, absent: []*sa.SA{esp},
			word: 2, reason: status.Verified, records: []outcome{good}},
	})
}

// positions puts a case that fails in one portion into the three places where
// that portion can stand. The case is made for SAs of one mode; word is its
// status.
func positions(mk func(mode sa.Mode) frameCase, code status.Code) []frameCase {
	word := status.CryptoDone.WithCode(code)
	transport, tunnel, inner := mk(sa.Transport), mk(sa.Tunnel), mk(sa.Transport)
	for _, c := range []*frameCase{&transport, &tunnel, &inner} {
		c.word = word
	}
	transport.name += "/transport"
	tunnel.name += "/tunnel"
	inner.name += "/inner (row 28)"
	inner.word |= status.NextCryptoDone
	tun := espSA(sa.Tunnel, spi(0x2777))
	inner.sas = append(slices.Clone(inner.sas), tun)
	inner.records = append([]outcome{good}, inner.records...)
	if spoil := inner.spoil; spoil != nil {
		inner.mangle = map[*sa.SA]forge.Mangle{tun: func(plain []byte) []byte { // spoil works on a frame
			n := len(plain) - 2 - int(plain[len(plain)-2])
			frame := spoil(forge.AppendFrame(nil, slices.Clone(plain[:n])))
			return forge.Payload(frame[14:])(plain)
		}}
		inner.spoil = nil
	}
	if fix := inner.fix; fix != nil {
		inner.fix = func(i int, r *status.Record) {
			if i > 0 {
				fix(i-1, r)
			}
		}
	}
	return []frameCase{transport, tunnel, inner}
}

// Contract row 22, and behind a good tunnel row 28: protocols of the SA and of
// the frame differ.
func TestRow22(t *testing.T) {
	mismatch := func(name string, sealed, offloaded func(sa.Mode) []*sa.SA, reason status.Reason, records ...outcome) func(sa.Mode) frameCase {
		return func(mode sa.Mode) frameCase {
			c := frameCase{name: name, sas: sealed(mode), also: offloaded(mode), reason: reason, records: records}
			c.absent = slices.Clone(c.sas)
			c.fix = func(_ int, r *status.Record) {
				c.asOffloaded(r, mode)
			}
			return c
		}
	}
	esp := func(m sa.Mode) []*sa.SA { return []*sa.SA{espSA(m, spi(0x77))} }
	ah := func(m sa.Mode) []*sa.SA { return []*sa.SA{ahSA(m, spi(0x77))} }
	pair := func(spiESP, spiAH uint32) func(sa.Mode) []*sa.SA {
		return func(m sa.Mode) []*sa.SA {
			e := espSA(m, spi(spiESP))
			return []*sa.SA{e, ahSA(m, spi(spiAH), over(e))}
		}
	}
	wrong, partner := failed(status.ProtocolMismatch), failed(status.BundleMismatch)
	for _, mk := range []func(sa.Mode) frameCase{
		mismatch("SA says AH, frame has ESP", esp, ah, status.ProtocolMismatch, wrong),
		mismatch("SA says ESP, frame has AH", ah, esp, status.ProtocolMismatch, wrong),
		mismatch("SA says AH+ESP, frame has ESP", esp, pair(0x77, 0x78), status.BundleMismatch, partner),
		mismatch("SA says AH+ESP, frame has AH", ah, pair(0x78, 0x77), status.BundleMismatch, partner),
		mismatch("the AH's SPI on an ESP", esp, pair(0x78, 0x77), status.ProtocolMismatch, wrong),
		mismatch("the partner is another SA", pair(0x79, 0x77), pair(0x78, 0x77), status.BundleMismatch, partner),
	} {
		runAll(t, positions(mk, status.InvalidProtocol))
	}
}

// asOffloaded corrects a record to the SA that is offloaded in the place of the
// one that sealed.
func (c *frameCase) asOffloaded(r *status.Record, mode sa.Mode) {
	r.Portion = kindOf[mode]
	r.Code = status.InvalidProtocol
	i := slices.IndexFunc(c.also, func(a *sa.SA) bool { return a.SPI == r.SPI })
	su := c.also[i].Suite
	whole := int(r.Payload) + int(r.PayloadLen)
	if r.Protocol == uint8(sa.ESP) {
		whole += int(r.ICVLen)
		r.Payload = r.IPsec + 8 + uint16(su.IVLen)
		r.PayloadLen = uint16(whole - su.ICVLen - int(r.Payload))
	}
	r.IVLen, r.ICVLen = uint8(su.IVLen), uint8(su.ICVLen)
}

// Contract row 22: a free AH over the ESP of somebody else's bundle.
func TestRow22BundleUnderFreeAH(t *testing.T) {
	esp, free := espSA(sa.Transport), ahSA(sa.Transport)
	owner := ahSA(sa.Transport, spi(0x99), over(esp))
	c := frameCase{sas: []*sa.SA{esp, free}}
	sad := pipeline.NewSAD(sa.Profiles[0], 1)
	offload(t, sad, free, esp, owner)
	s := c.seal(t)
	body, trailer := process(t, sad, pipeline.Options{}, s.frame)
	if trailer.Word != 0x00070002 || trailer.Reason != status.BundleMismatch || trailer.N != 2 {
		t.Errorf("word %s, %s, %d records", trailer.Word, trailer.Reason, trailer.N)
	}
	if r := trailer.Records; r[0].State != status.FailedBefore || r[1].State != status.NotProcessed || r[1].Reason != status.NotTried {
		t.Errorf("records %+v", r[:2])
	}
	sameBytes(t, body, s.frame)
}

// Only a transport-mode AH and the ESP behind it are one portion: behind a
// tunnel-mode AH there is a packet, and here is none (contract, Bundles; row
// 32).
func TestTunnelAHOverESP(t *testing.T) {
	esp, sealing := espSA(sa.Transport), ahSA(sa.Transport, spi(0x55))
	tunnel := ahSA(sa.Tunnel, spi(0x55), between(host4a, host4b))
	tunnel.IntegrityKey = sealing.IntegrityKey
	sad := pipeline.NewSAD(sa.Profiles[0], 1)
	offload(t, sad, esp, tunnel)
	c := frameCase{sas: []*sa.SA{esp, sealing}}
	s := c.seal(t)
	body, trailer := process(t, sad, pipeline.Options{}, s.frame)
	if trailer.Word != 2 || trailer.Reason != status.InnerNotIP || trailer.N != 1 || trailer.Records[0].Portion != status.TunnelPortion {
		t.Errorf("%s, %s, records %+v", trailer.Word, trailer.Reason.String(), trailer.Records[:trailer.N])
	}
	sameBytes(t, body, s.frame)
}

// A cipher without integrity is never opened without its AH (contract row 22;
// contract, SA lookup).
func TestRow22NoIntegrity(t *testing.T) {
	esp := espSA(sa.Transport, testkit.Suite("aes128"))
	ah := ahSA(sa.Transport, over(esp))
	c := frameCase{
		sas: []*sa.SA{esp}, also: []*sa.SA{ah}, word: 0x00070002, reason: status.BundleMismatch,
		records: []outcome{failed(status.BundleMismatch)},
	}
	c.check(t)
	both := frameCase{sas: []*sa.SA{esp, ah}, word: 2, reason: status.Verified, records: []outcome{good, good}}
	both.check(t)
}

// Contract row 24: pads other than 1, 2, 3 ... behind a good ICV, unless the SA
// says otherwise.
func TestRow24(t *testing.T) {
	loose := func(s *sa.SA) { s.PadCheck = false }
	for _, name := range []string{"aes128gcm16", "aes128-sha256", "chacha20poly1305"} {
		runAll(t, positions(func(m sa.Mode) frameCase {
			a := espSA(m, testkit.Suite(name))
			return frameCase{name: name, sas: []*sa.SA{a}, mangle: mangled(a, forge.ZeroPad),
				reason: status.PadBytes, records: []outcome{after(status.PadBytes)}}
		}, status.GenericError))
		runAll(t, positions(func(m sa.Mode) frameCase {
			a := espSA(m, testkit.Suite(name), loose)
			return frameCase{name: name + ", pad_check off", sas: []*sa.SA{a}, mangle: mangled(a, forge.ZeroPad),
				reason: status.Verified, records: []outcome{good}}
		}, status.Success))
	}
	runAll(t, positions(func(m sa.Mode) frameCase {
		b := bundle(m)
		return frameCase{name: "under AH", sas: b, mangle: mangled(b[0], forge.ZeroPad),
			reason: status.PadBytes, records: []outcome{good, after(status.PadBytes)}}
	}, status.GenericError))
}

// Contract row 27: a deleted SA leaves its frames alone, and so does its bundle
// partner.
func TestRow27(t *testing.T) {
	for _, sas := range [][]*sa.SA{{espSA(sa.Transport)}, {ahSA(sa.Tunnel)}, bundle(sa.Transport)} {
		c := frameCase{sas: sas}
		frame, sad := c.seal(t).frame, c.nic(t)
		handle := sad.List()[0].Handle
		if err := sad.Delete(handle); err != nil {
			t.Fatal(err)
		}
		untouched(t, sad, frame, status.SADeleted)
		if err := sad.Delete(handle); err == nil {
			t.Error("the second deletion was accepted")
		}
		if n := len(sad.List()); n != 0 {
			t.Errorf("%d SAs are left", n)
		}
	}
}

// Contract row 32: a good tunnel that carries no whole IP packet is delivered
// in place in both forms.
func TestRow32(t *testing.T) {
	for _, family := range [][]change{nil, {v6}} {
		esp := espSA(sa.Tunnel, family...)
		c := func(name string, m forge.Mangle, reason status.Reason) frameCase {
			return frameCase{name: name, sas: []*sa.SA{esp}, mangle: mangled(esp, m), word: 2, reason: reason,
				records: []outcome{good}, inPlace: true}
		}
		runAll(t, []frameCase{
			c("dummy", forge.NextHeader(wire.ProtoNoNext), status.Dummy),
			c("transport protocol", forge.NextHeader(wire.ProtoUDP), status.InnerNotIP),
			c("announced as IPv6", forge.NextHeader(wire.ProtoIPv6), status.InnerNotIP),
			c("no version", set(0, 0x75), status.InnerNotIP),
			c("total length beyond the payload", set(2, 1, 0), status.InnerLength),
			c("total length below the header", set(2, 0, 3), status.InnerNotIP),
			c("nothing", forge.Payload(nil), status.InnerNotIP),
		})
	}
	dummy := frameCase{sas: []*sa.SA{espSA(sa.Tunnel)}, word: 2, reason: status.InnerNotIP, records: []outcome{good}, inPlace: true}
	dummy.mangle = mangled(dummy.sas[0], func(plain []byte) []byte {
		return forge.NextHeader(wire.ProtoIPv6)(forge.Payload(plain6()[:39])(plain))
	})
	dummy.check(t)
}

// TFC padding behind the inner packet is no part of it: in place it stays, decap
// cuts it (contract, Decap form).
func TestTFC(t *testing.T) {
	esp, inner := espSA(sa.Tunnel), espSA(sa.Transport)
	runAll(t, []frameCase{
		{name: "clear inside", sas: []*sa.SA{esp}, mangle: mangled(esp, forge.TFC(200)), word: 2, reason: status.Verified, records: []outcome{good}},
		{name: "transport inside", sas: []*sa.SA{inner, esp}, mangle: mangled(esp, forge.TFC(200)), word: 6, reason: status.Verified, records: []outcome{good, good}},
	})
}

// In transport mode surplus bytes cannot be told from payload, and an empty
// payload is legal (contract row 23; contract, the transport).
func TestTransportPayloads(t *testing.T) {
	empty := raw(17, host4a, host4b)
	for _, sas := range [][]*sa.SA{{espSA(sa.Transport)}, {ahSA(sa.Transport)}, bundle(sa.Transport)} {
		c := frameCase{sas: sas, packet: empty, word: 2, reason: status.Verified, records: slices.Repeat([]outcome{good}, len(sas))}
		c.check(t)
	}
}
