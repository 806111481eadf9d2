package pipeline_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
	"tapsec/wire"
)

// addLength adds n to the IP length of the packet in b[at:].
func addLength(b []byte, at, n int) {
	field := at + 2
	if b[at]>>4 == 6 {
		field = at + 4
	}
	binary.BigEndian.PutUint16(b[field:], uint16(int(binary.BigEndian.Uint16(b[field:]))+n))
}

// shorten takes n bytes off a frame without tags, and off its IP length.
func shorten(n int) func([]byte) []byte {
	return func(f []byte) []byte {
		addLength(f, 14, -n)
		return f[:len(f)-n]
	}
}

// less corrects record i to a payload that is n bytes shorter.
func less(at, n int) func(int, *status.Record) {
	return func(i int, r *status.Record) {
		if i == at {
			r.PayloadLen -= uint16(n)
		}
	}
}

// rowFamilies runs mk for IPv4 and IPv6.
func rowFamilies(mk func(packet []byte, family ...change)) {
	mk(plain4())
	mk(plain6(), v6)
}

// Contract row 23 a: the IP length reaches beyond the frame, or inside a tunnel
// beyond its payload.
func TestRow23aIPLength(t *testing.T) {
	rowFamilies(func(packet []byte, family ...change) {
		for _, l := range []func(sa.Mode) []*sa.SA{
			func(m sa.Mode) []*sa.SA { return []*sa.SA{espSA(m, family...)} },
			func(m sa.Mode) []*sa.SA { return []*sa.SA{ahSA(m, family...)} },
			func(m sa.Mode) []*sa.SA { return bundle(m, family...) },
		} {
			mk := func(m sa.Mode) frameCase {
				sas := l(m)
				c := frameCase{name: sas[0].Name, sas: sas, packet: packet, reason: status.IPLength, inPlace: true}
				c.records = []outcome{failed(status.IPLength), notTried}[:len(sas)]
				return c
			}
			cut := mk(sa.Tunnel)
			cut.name, cut.word = "cut "+cut.name, 0x00060002
			cut.spoil = func(f []byte) []byte { return f[:len(f)-10] }
			cut.fix = func(_ int, r *status.Record) { r.PayloadLen -= 10 }
			long := mk(sa.Transport)
			long.name, long.word = "long "+long.name, 0x00060002
			long.spoil = func(f []byte) []byte { addLength(f, 14, 1); return f }
			inner := mk(sa.Transport)
			tun := espSA(sa.Tunnel, spi(0x2777))
			inner.name, inner.word = "inner "+inner.name, 0x00060006
			inner.sas = append(inner.sas, tun)
			inner.records = append([]outcome{good}, inner.records...)
			inner.mangle = mangled(tun, func(plain []byte) []byte { addLength(plain, 0, 1); return plain })
			inner.fix = func(i int, r *status.Record) {
				if i > 0 {
					r.PayloadLen-- // place believes the length
				}
			}
			runAll(t, []frameCase{cut, long, inner})
		}
	})
}

// Contract row 23 a: a UDP length beyond the IP payload. A shorter one bounds
// the ESP packet, whose ICV is then another (contract, UDP-ESP).
func TestRow23aUDPLength(t *testing.T) {
	udpLen := func(at, n int) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[at:], uint16(int(binary.BigEndian.Uint16(b[at:]))+n))
			return b
		}
	}
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		c := frameCase{sas: []*sa.SA{espSA(mode, encap)}}
		long := c
		long.name, long.word, long.reason = "beyond", 0x00060002, status.UDPLength
		long.spoil, long.records = udpLen(14+24, 1), []outcome{failed(status.UDPLength)}
		short := c
		short.name, short.reason = "below", status.ESPICV
		short.word = words[mode].esp
		short.spoil, short.records = udpLen(14+24, -4), []outcome{badESP}
		short.fix = less(0, 4)
		odd := short
		odd.name, odd.word, odd.reason = "odd", 0x00060002, status.ESPLength
		odd.spoil, odd.records, odd.fix = udpLen(14+24, -1), []outcome{failed(status.ESPLength)}, less(0, 1)
		runAll(t, []frameCase{long, short, odd})
	}
	tun := espSA(sa.Tunnel)
	runAll(t, []frameCase{{
		name: "inner (row 28)", sas: []*sa.SA{espSA(sa.Transport, encap), tun}, mangle: mangled(tun, udpLen(24, 1)),
		word: 0x00060006, reason: status.UDPLength, records: []outcome{good, failed(status.UDPLength)},
	}})
}

// Contract row 23 b: between IV and ICV there are fewer than 2 bytes, or no
// multiple of the block.
func TestRow23bESPLength(t *testing.T) {
	for _, f := range []struct {
		suite string
		left  int // bytes between IV and ICV
	}{
		{"aes128gcm16", 0}, {"aes128gcm16", 1}, {"aes128gcm16", 2}, {"aes128gcm16", 3}, {"aes128gcm16", 5}, {"aes128gcm16", 6},
		{"null-sha256", 0}, {"null-sha256", 7}, {"chacha20poly1305", 2}, {"aes128ctr-sha256", 9},
		{"aes128-sha256", 0}, {"aes128-sha256", 4}, {"aes128-sha256", 17}, {"aes128-sha256", 28},
		{"3des-sha1", 4}, {"3des-sha1", 12}, {"aes128gmac", 1},
	} {
		runAll(t, positions(func(m sa.Mode) frameCase {
			a := espSA(m, testkit.Suite(f.suite))
			c := frameCase{name: f.suite, sas: []*sa.SA{a}, reason: status.ESPLength, records: []outcome{failed(status.ESPLength)}}
			c.spoil = func(frame []byte) []byte {
				whole := len(frame) - 14 - 20 - 8 - a.Suite.IVLen - a.Suite.ICVLen
				return shorten(whole - f.left)(frame)
			}
			c.fix = func(_ int, r *status.Record) { r.PayloadLen = uint16(f.left) }
			return c
		}, status.InvalidPacketSyntax))
	}
	runAll(t, positions(func(m sa.Mode) frameCase { // the AH is made over the wrong length
		b := bundle(m)
		return frameCase{name: "under AH", sas: b, reason: status.ESPLength, records: []outcome{good, failed(status.ESPLength)},
			mangle: mangled(b[1], func(x []byte) []byte { return x[:len(x)-1] }), noDecap: true}
	}, status.InvalidPacketSyntax))
}

// Contract row 23 b: not even IV and ICV are there, or the sequence number,
// which then counts as 0. Contract row 23b: nor the SPI.
func TestRow23TooShort(t *testing.T) {
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport)
	for n := range 36 {
		for _, a := range []*sa.SA{esp, ah} {
			c := frameCase{sas: []*sa.SA{a}, spoil: func(f []byte) []byte { return shorten(len(f) - 34 - n)(f) }}
			spiEnd, reason := 4, status.ESPLength
			if a == ah {
				spiEnd, reason = 8, status.AHLength
			}
			if n < spiEnd {
				untouched(t, c.nic(t), c.seal(t).frame, status.SPIOutside)
				continue
			}
			frame := c.seal(t).frame
			body, trailer := process(t, c.nic(t), pipeline.Options{}, frame)
			if a == ah && n >= 32 {
				reason = status.AHICV
			}
			r := trailer.Records[0]
			if trailer.Reason != reason || trailer.N != 1 || r.State != status.FailedBefore {
				t.Errorf("%s, %d bytes: %s, %+v", a.Name, n, trailer.Reason, r)
			}
			if known := n >= spiEnd+4; (r.Number == 1) != known {
				t.Errorf("%s, %d bytes: number %d", a.Name, n, r.Number)
			}
			if int(r.Payload)+int(r.PayloadLen) > len(frame) {
				t.Errorf("%s, %d bytes: payload %d+%d beyond %d", a.Name, n, r.Payload, r.PayloadLen, len(frame))
			}
			sameBytes(t, body, padded(frame))
		}
	}
}

// AH+ESP that ends near the border between the two. A bundle's ESP is looked for
// wherever the AH ends within the packet; that of an unbundled AH only where its
// SPI is (contract, Bundles; rows 23 b and 23 c).
func TestAHESPCutShort(t *testing.T) {
	const ahLen = 32
	for bundled, sas := range map[bool][]*sa.SA{true: bundle(sa.Transport), false: {espSA(sa.Transport), ahSA(sa.Transport)}} {
		for n := range 12 {
			c := frameCase{sas: sas, mangle: mangled(sas[1], func(b []byte) []byte { return b[:ahLen+n] })}
			frame := c.seal(t).frame
			body, trailer := process(t, c.nic(t), pipeline.Options{}, frame)
			word, reason, records := status.Word(0x00060002), status.ESPLength, uint8(2)
			if !bundled && n < 4 {
				word, reason, records = 2, status.Verified, 1
			}
			if trailer.Word != word || trailer.Reason != reason || trailer.N != records {
				t.Errorf("bundled %v, %d bytes behind the AH: %s %s, %d records", bundled, n, trailer.Word, trailer.Reason.String(), trailer.N)
			}
			sameBytes(t, body, padded(frame))
		}
		for n := 8; n < ahLen; n++ { // the AH itself is cut
			c := frameCase{sas: sas, spoil: func(f []byte) []byte { return shorten(len(f) - 34 - n)(f) }}
			_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
			if trailer.Word != 0x00060002 || trailer.Reason != status.AHLength || trailer.N != 1 {
				t.Errorf("bundled %v, %d bytes of AH: %s %s, %d records", bundled, n, trailer.Word, trailer.Reason.String(), trailer.N)
			}
		}
	}
}

// Contract row 23 c: the AH's length field fits neither the SA nor the packet.
// Of a bundle the ESP is then not looked for.
func TestRow23cAHLength(t *testing.T) {
	lengths := map[uint8][]byte{ // of 28 and 32 bytes, 5 and 6, the first is IPv4's alone
		4: {0, 1, 4, 7, 8, 255},
		6: {0, 1, 4, 5, 7, 8, 255},
	}
	rowFamilies(func(packet []byte, family ...change) {
		version, header := packet[0]>>4, headersLen(packet)
		for _, n := range lengths[version] {
			field := func(_ int, r *status.Record) {
				end := r.Payload + r.PayloadLen
				r.Payload = min(r.IPsec+4*(uint16(n)+2), end)
				r.PayloadLen = end - r.Payload
			}
			lone := func(m sa.Mode) frameCase {
				return frameCase{name: "AH", sas: []*sa.SA{ahSA(m, family...)}, packet: packet, spoil: set(14+header+1, n),
					fix: field, reason: status.AHLength, records: []outcome{failed(status.AHLength)}}
			}
			bundled := func(m sa.Mode) frameCase {
				c := lone(m)
				c.name, c.sas = "AH+ESP", bundle(m, family...)
				c.fix = func(i int, r *status.Record) {
					field(i, r)
					r.Portion = kindOf[m]
				}
				return c
			}
			runAll(t, positions(lone, status.InvalidPacketSyntax))
			runAll(t, positions(bundled, status.InvalidPacketSyntax))
		}
	})
}

var kindOf = map[sa.Mode]status.Portion{sa.Transport: status.TransportPortion, sa.Tunnel: status.TunnelPortion}

// AH's length is rounded up to 4 or to 8 octets in IPv4, and the padding counts
// as it was sent, stale bytes included (contract, Headers in detail).
func TestAHRounding(t *testing.T) {
	stale := func(b []byte) []byte { copy(b[28:32], "junk"); return b }
	to4 := func(b []byte) []byte { b[1] = 5; return append(b[:28], b[32:]...) }
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		a := ahSA(mode)
		c := frameCase{sas: []*sa.SA{a}, word: 2, reason: status.Verified, records: []outcome{good}}
		four, eight := c, c
		four.name, four.mangle, four.ahLen = "4 octets", mangled(a, to4), 28
		eight.name, eight.mangle = "8 octets, stale padding", mangled(a, stale)
		changed := eight
		changed.name, changed.spoil, changed.records = "padding changed on the way", set(14+20+30, 0xee), []outcome{badAH}
		changed.word, changed.reason = words[mode].ah, status.AHICV
		runAll(t, []frameCase{four, eight, changed})
	}
	six := ahSA(sa.Transport, v6)
	c := frameCase{name: "stale in IPv6", sas: []*sa.SA{six}, packet: plain6(), mangle: mangled(six, stale),
		word: 2, reason: status.Verified, records: []outcome{good}}
	runAll(t, []frameCase{c})
}

// Contract row 23 d: behind a good ICV the pad length exceeds what there is.
func TestRow23dPadLength(t *testing.T) {
	for _, name := range []string{"aes128gcm16", "aes128-sha256", "null-sha256"} {
		runAll(t, positions(func(m sa.Mode) frameCase {
			a := espSA(m, testkit.Suite(name))
			return frameCase{name: name, sas: []*sa.SA{a}, mangle: mangled(a, forge.PadLength(255)),
				reason: status.PadLength, records: []outcome{after(status.PadLength)}, noDecap: true}
		}, status.InvalidPacketSyntax))
	}
	runAll(t, positions(func(m sa.Mode) frameCase {
		b := bundle(m)
		return frameCase{name: "under AH", sas: b, mangle: mangled(b[0], forge.PadLength(255)),
			reason: status.PadLength, records: []outcome{good, after(status.PadLength)}, noDecap: true}
	}, status.InvalidPacketSyntax))
}

// The boundary of row 23 d: a pad as long as all there is leaves an empty
// payload, which is legal; one more is too long.
func TestRow23dBoundary(t *testing.T) {
	a := espSA(sa.Transport, func(s *sa.SA) { s.PadCheck = false })
	packet := raw(17, host4a, host4b, make([]byte, 16)...) // 16 bytes, 2 of pad, 2 of trailer
	for n, want := range map[byte]status.Word{18: 2, 19: 0x00060002} {
		c := frameCase{sas: []*sa.SA{a}, packet: packet, mangle: mangled(a, forge.PadLength(n))}
		_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
		if trailer.Word != want {
			t.Errorf("pad length %d of 18: %s, want %s", n, trailer.Word, want)
		}
	}
}

// Contract row 23 e: options or extension headers that AH must read do not
// parse. ESP does not read them.
func TestRow23eOptions(t *testing.T) {
	option := forge.Options(nil, plain4(), []byte{7, 4, 4, 0})
	header := forge.Extension(nil, plain6(), wire.ProtoDestOpts, []byte{0, 0, 0x3e, 4, 1, 2, 3, 4})
	for _, f := range []struct {
		name   string
		packet []byte
		family []change
		at     int // of the option's length in the packet
	}{{"IPv4", option, nil, 21}, {"IPv6", header, []change{v6}, 43}} {
		ah, esp, tun := ahSA(sa.Transport, f.family...), espSA(sa.Transport, f.family...), espSA(sa.Tunnel)
		c := frameCase{packet: f.packet, word: 0x00060002, reason: status.OptionSyntax}
		alone, both, inner, fine := c, c, c, c
		alone.name, alone.sas, alone.spoil = f.name+" transport", []*sa.SA{ah}, set(14+f.at, 200)
		alone.records = []outcome{failed(status.OptionSyntax)}
		both.name, both.sas, both.spoil = f.name+" AH+ESP", bundle(sa.Transport, f.family...), set(14+f.at, 200)
		both.records = []outcome{failed(status.OptionSyntax), notTried}
		inner.name, inner.word, inner.sas = f.name+" inner (row 28)", 0x00060006, []*sa.SA{ah, tun}
		inner.mangle = mangled(tun, set(f.at, 200))
		inner.records = []outcome{good, failed(status.OptionSyntax)}
		fine.name, fine.sas, fine.spoil = f.name+" ESP", []*sa.SA{esp}, set(14+f.at, 200)
		fine.word, fine.reason, fine.records, fine.noDecap = 2, status.Verified, []outcome{good}, true
		runAll(t, []frameCase{alone, both, inner, fine})
	}
	for _, bad := range [][]byte{{7}, {7, 0, 0, 0}, {7, 1, 0, 0}, {7, 5, 0, 0}, {1, 1, 1, 7}} {
		c := frameCase{sas: []*sa.SA{ahSA(sa.Transport)}, packet: forge.Options(nil, plain4(), make([]byte, len(bad)))}
		c.spoil = set(34, bad...)
		_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
		if trailer.Reason != status.OptionSyntax {
			t.Errorf("options % x: %s", bad, trailer.Reason)
		}
	}
}

// A frame that announces a tunnel-mode AH whose outer header has options which
// do not parse (contract row 23 e, tunnel).
func TestRow23eTunnel(t *testing.T) {
	c := frameCase{sas: []*sa.SA{ahSA(sa.Tunnel)}, spoil: func(f []byte) []byte {
		f = slices.Insert(f, 34, 7, 200, 0, 0)
		f[14] = 0x46
		addLength(f, 14, 4)
		return f
	}}
	frame := c.seal(t).frame
	body, trailer := process(t, c.nic(t), pipeline.Options{}, frame)
	if trailer.Word != 0x00060002 || trailer.Reason != status.OptionSyntax {
		t.Errorf("%s %s", trailer.Word, trailer.Reason)
	}
	sameBytes(t, body, frame)
}

// The order within a portion: capabilities, protocols, AH lengths, AH ICV, ESP
// lengths, ESP ICV, pad length, pad bytes (contract, What fails first).
func TestFirstFailureNames(t *testing.T) {
	off := func(s *pipeline.SAD) { s.Switch(false, true) }
	b := bundle(sa.Transport)
	everything := frameCase{
		sas: b, mangle: map[*sa.SA]forge.Mangle{b[0]: forge.PadLength(255), b[1]: func(x []byte) []byte { return x[:len(x)-1] }},
	}
	step := func(name string, reason status.Reason, spoil func([]byte) []byte, change func(*frameCase)) {
		c := everything
		c.spoil = spoil
		if change != nil {
			change(&c)
		}
		_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
		if trailer.Reason != reason {
			t.Errorf("%s: %s, want %s", name, trailer.Reason, reason)
		}
	}
	ahLength := set(14+20+1, 9)
	badESPSPI := set(14+20+32, 9, 9, 9, 9)
	step("capabilities before protocols", status.ProtocolOff, badESPSPI, func(c *frameCase) { c.prepare = off })
	step("protocols before the AH's ICV", status.BundleMismatch, badESPSPI, nil)
	step("AH length before its ICV", status.AHLength, ahLength, nil)
	step("AH ICV before ESP length", status.AHICV, flipLast, nil)
	step("ESP length before its ICV", status.ESPLength, nil, nil)
	whole := mangled(b[0], forge.PadLength(255))
	step("ESP ICV before pad length", status.ESPICV, nil, func(c *frameCase) {
		c.mangle = map[*sa.SA]forge.Mangle{b[0]: forge.PadLength(255), b[1]: flipLast}
	})
	step("pad length before pad bytes", status.PadLength, nil, func(c *frameCase) { c.mangle = whole })
}
