package diagnosis_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/account"
	"tapsec/internal/diagnosis"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

var (
	hostA, hostB = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	gateA, gateB = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	public       = netip.MustParseAddr("203.0.113.9")
)

type change func(*sa.SA)

func suite(name string) change {
	return func(s *sa.SA) {
		su, err := sa.ParseSuite(s.Protocol, name)
		if err != nil {
			panic(err)
		}
		s.Suite = su
		s.EncryptionKey, s.IntegrityKey = secret(1, su.EncryptionKeyLen()), secret(101, su.IntegrityKeyLen())
	}
}

// secret is a key in which no two bytes are alike.
func secret(seed byte, n int) sa.Key {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i)
	}
	return sa.NewKey(b)
}

// key gives an SA other keys.
func key(seed byte) change {
	return func(s *sa.SA) {
		s.EncryptionKey = secret(seed, s.Suite.EncryptionKeyLen())
		s.IntegrityKey = secret(seed+100, s.Suite.IntegrityKeyLen())
	}
}

// material changes the bytes of the one key that the suite has.
func material(f func([]byte) []byte) change {
	return func(s *sa.SA) {
		if s.Protocol == sa.AH {
			s.IntegrityKey = sa.NewKey(f(slices.Clone(s.IntegrityKey.Bytes())))
		} else {
			s.EncryptionKey = sa.NewKey(f(slices.Clone(s.EncryptionKey.Bytes())))
		}
	}
}

func esp(changes ...change) *sa.SA { return made(sa.ESP, "aes128gcm16", changes) }
func ah(changes ...change) *sa.SA  { return made(sa.AH, "sha256", changes) }

func made(p sa.Protocol, name string, changes []change) *sa.SA {
	s := &sa.SA{Name: "site-a", SPI: 0x1001, Protocol: p, Mode: sa.Tunnel, PadCheck: true, Src: gateA, Dst: gateB}
	suite(name)(s)
	for _, c := range changes {
		c(s)
	}
	return s
}

func transport(s *sa.SA) { s.Mode, s.Src, s.Dst = sa.Transport, hostA, hostB }
func esn(s *sa.SA)       { s.ESN = true }
func encap(s *sa.SA)     { s.Encap = true }
func back(s *sa.SA)      { s.Src, s.Dst = s.Dst, s.Src }
func icv(n int) change   { return func(s *sa.SA) { s.Suite.ICVLen = n } }
func high(n uint32) change {
	return func(s *sa.SA) { s.ESN, s.SeqHigh = true, n }
}
func named(name string, spi uint32) change {
	return func(s *sa.SA) { s.Name, s.SPI = name, spi }
}
func between(src, dst netip.Addr) change { return func(s *sa.SA) { s.Src, s.Dst = src, dst } }

// scene is frames that one SA sealed, and a NIC that holds others.
type scene struct {
	name   string
	sent   *sa.SA
	held   []*sa.SA
	former []*sa.SA
	under  *sa.SA                     // sealed by this one first, inside
	mangle forge.Mangle               // of what is sealed
	spoil  func(packet []byte) []byte // of the sealed packet
	plain  func(packet []byte) []byte // of what is sealed
	frame  func(frame []byte) []byte  // of the frame
	cut    int
	form   status.Form
	first  uint64 // number; 0: the first of its high half

	cause   diagnosis.Cause
	unsure  bool
	says    string
	further []diagnosis.Cause
}

const sent = 3

func plainPacket(i int) []byte {
	return forge.UDP(nil, netip.AddrPortFrom(hostA, 4000), netip.AddrPortFrom(hostB, 5000), fmt.Appendf(nil, "datagram %d of those that go from here to there", i))
}

func (c *scene) packet(i int) []byte {
	plain := plainPacket(i)
	if c.plain != nil {
		plain = c.plain(plain)
	}
	sas := []*sa.SA{c.sent}
	if c.under != nil {
		sas = []*sa.SA{c.under, c.sent}
	}
	out, err := outbound.NewSealer(nil, sas...)
	if err != nil {
		panic(err)
	}
	n := max(c.first, uint64(c.sent.SeqHigh)<<32+1) + uint64(i)
	out.SetNumber(0, n)
	packet, err := out.Seal(nil, plain)
	if err != nil {
		panic(err)
	}
	if c.mangle != nil {
		packet = forge.Reseal(packet, c.sent, n, c.mangle)
	}
	if c.spoil != nil {
		packet = c.spoil(packet)
	}
	return packet
}

// run has the NIC judge so many frames, and gives what was found.
func (c *scene) run(t *testing.T, n int) []account.Finding {
	t.Helper()
	full, err := sa.ProfileByName("full")
	if err != nil {
		t.Fatal(err)
	}
	sad := pipeline.NewSAD(full, 1)
	for _, s := range c.held {
		if _, err := sad.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	p := pipeline.New(sad, pipeline.Options{Form: c.form})
	d := diagnosis.New(sad.List(), c.former)
	for i := range n {
		frame := forge.AppendFrame(nil, c.packet(i))
		if c.frame != nil {
			frame = c.frame(frame)
		}
		see(t, d, p, frame, c.cut, i+1)
	}
	return d.All()
}

func see(t *testing.T, d *diagnosis.Case, p *pipeline.Pipeline, frame []byte, missing, number int) {
	t.Helper()
	body, trailer, err := status.Split(p.Process(frame))
	if err != nil {
		t.Fatal(err)
	}
	f := account.FrameOf(body, &trailer, netip.Addr{}, netip.Addr{}, missing)
	d.See(body, &f, number)
}

func scenes() []scene {
	other := esp(key(9), named("site-b", 0x1002), between(gateA, public))
	reverse := esp(key(9), named("back", 0x1002), back)
	var all []scene
	add := func(c scene) { all = append(all, c) }
	one := func(cause diagnosis.Cause, name string, sent, held *sa.SA, says string) {
		add(scene{name: name, sent: sent, held: []*sa.SA{held}, cause: cause, says: says})
	}

	add(scene{name: "another SA's key", sent: esp(key(9)), held: []*sa.SA{esp(), other}, cause: diagnosis.OtherKey, says: "All 3 frames of site-a fail: with the key of site-b, 3 of the 3 frames tried verify"})
	add(scene{name: "another SA's suite and key", sent: esp(suite("aes256-sha256"), key(9)), held: []*sa.SA{esp(), esp(suite("aes256-sha256"), key(9), named("site-b", 7))}, cause: diagnosis.OtherKey})
	add(scene{name: "another SA's key, with its ESN", sent: esp(key(9), high(5)), held: []*sa.SA{esp(), esp(key(9), high(5), named("site-b", 7))}, cause: diagnosis.OtherKey})
	add(scene{name: "another SA's key and own suite", sent: esp(key(9)), held: []*sa.SA{esp(), esp(suite("aes128gcm8"), key(9), named("site-b", 7))}, cause: diagnosis.OtherKey})
	add(scene{name: "another SA's key and own suite, HMAC", sent: esp(suite("aes128-sha256"), key(9)), held: []*sa.SA{esp(suite("aes128-sha256")), esp(suite("null-sha256_96"), key(9), named("site-b", 7)), esp(suite("aes128-sha1"), key(9), named("site-c", 8))},
		cause: diagnosis.OtherKey, further: []diagnosis.Cause{diagnosis.EncryptionKey}, says: "site-b"})
	add(scene{name: "another SA's key, AH", sent: ah(key(9)), held: []*sa.SA{ah(), ah(key(9), named("site-b", 7))}, cause: diagnosis.OtherKey})
	add(scene{name: "integrity key of another SA", sent: esp(suite("aes128-sha256"), func(s *sa.SA) { s.IntegrityKey = secret(77, 32) }),
		held:  []*sa.SA{esp(suite("aes128-sha256")), esp(suite("aes128-sha256"), named("site-b", 7), func(s *sa.SA) { s.EncryptionKey, s.IntegrityKey = secret(50, 16), secret(77, 32) })},
		cause: diagnosis.OtherKey, further: []diagnosis.Cause{diagnosis.EncryptionKey}})
	add(scene{name: "rekeyed under the SPI", sent: esp(key(9)), held: []*sa.SA{esp()}, former: []*sa.SA{esp(key(9))}, cause: diagnosis.FormerKey})
	add(scene{name: "key of the other direction", sent: esp(key(9)), held: []*sa.SA{esp(), reverse}, cause: diagnosis.SwappedDirection, says: "back"})
	add(scene{name: "addresses of the other direction", sent: esp(), held: []*sa.SA{esp(back)}, cause: diagnosis.SwappedDirection})
	for _, name := range []string{"aes256-sha256", "aes128-sha256", "aes128-sha1", "aes128ctr-aescmac"} {
		one(diagnosis.SwappedKeys, "keys exchanged, "+name, esp(suite(name)), esp(suite(name), func(s *sa.SA) {
			both := append(slices.Clone(s.IntegrityKey.Bytes()), s.EncryptionKey.Bytes()...)
			n := s.EncryptionKey.Len()
			s.EncryptionKey, s.IntegrityKey = sa.NewKey(both[:n]), sa.NewKey(both[n:])
		}), "keys exchanged")
	}
	for _, salted := range []*sa.SA{esp(), esp(suite("chacha20poly1305")), esp(suite("aes128gmac")), ah(suite("aes128gmac")), esp(suite("aes192ccm12"))} {
		n, name := salted.Suite.SaltLen, fmt.Sprintf("%s %s", salted.Protocol, salted.Suite.Name)
		kept := func(f func([]byte) []byte) *sa.SA { s := *salted; material(f)(&s); return &s }
		one(diagnosis.Salt, name+": no salt", kept(func(b []byte) []byte { clear(b[len(b)-n:]); return b }), salted, "a salt of zeros")
		one(diagnosis.Salt, name+": salt in front", salted, kept(func(b []byte) []byte { return append(slices.Clone(b[len(b)-n:]), b[:len(b)-n]...) }), "from in front")
		one(diagnosis.Salt, name+": salt reversed", salted, kept(func(b []byte) []byte { slices.Reverse(b[len(b)-n:]); return b }), "reversed")
	}
	add(scene{name: "salt of another SA", sent: esp(material(func(b []byte) []byte { copy(b[16:], []byte{9, 8, 7, 6}); return b })),
		held: []*sa.SA{esp(), esp(named("site-b", 7), material(func(b []byte) []byte { return []byte("0123456789abcdef\x09\x08\x07\x06") }))}, cause: diagnosis.Salt, says: "site-b"})
	one(diagnosis.KeyOrder, "key reversed", ah(), ah(material(func(b []byte) []byte { slices.Reverse(b); return b })), "reversed")
	one(diagnosis.KeyOrder, "words swapped", ah(), ah(material(func(b []byte) []byte {
		for w := range slices.Chunk(b, 4) {
			slices.Reverse(w)
		}
		return b
	})), "32-bit")
	for sentAs, heldAs := range map[string]string{"aes128gcm8": "aes128gcm16", "aes256gcm16": "aes256gcm12", "aes128ccm8": "aes128ccm16"} {
		one(diagnosis.ICVLength, sentAs+" as "+heldAs, esp(suite(sentAs)), esp(suite(heldAs)), "instead of")
	}
	one(diagnosis.ICVLength, "SHA-1 in full", esp(suite("aes128-sha1"), icv(20)), esp(suite("aes128-sha1")), "160 bits instead of 96")
	one(diagnosis.ICVLength, "MD5 in full, AH", ah(suite("md5"), icv(16)), ah(suite("md5")), "128 bits instead of 96")
	one(diagnosis.ICVLength, "SHA-512 at 96", ah(suite("sha512"), icv(12)), ah(suite("sha512")), "96 bits instead of 256")
	for _, p := range []func(...change) *sa.SA{esp, ah} {
		name := p().Protocol.String()
		long, short := suite("sha256"), suite("sha256_96")
		if p().Protocol == sa.ESP {
			long, short = suite("aes128-sha256"), suite("aes128-sha256_96")
		}
		one(diagnosis.SHA256Draft, name+" of the draft", p(short), p(long), "96 bits instead of 128")
		one(diagnosis.ICVLength, name+" not of the draft", p(long), p(short), "128 bits instead of 96")
	}
	one(diagnosis.OtherAlgorithm, "GCM and not ChaCha", esp(suite("aes256gcm16")), esp(suite("chacha20poly1305")), "aes256gcm16 instead of chacha20poly1305")
	one(diagnosis.OtherAlgorithm, "CCM and not GCM", esp(suite("aes128ccm16")), esp(), "aes128ccm16")
	one(diagnosis.OtherAlgorithm, "GMAC and not GCM", esp(suite("aes128gmac")), esp(), "aes128gmac")
	one(diagnosis.OtherAlgorithm, "CMAC and not MD5", esp(suite("aes128-aescmac")), esp(suite("aes128-md5")), "aescmac")
	one(diagnosis.OtherAlgorithm, "XCBC and not CMAC", ah(suite("aesxcbc")), ah(suite("aescmac")), "aesxcbc")
	add(scene{name: "ESP and not AH", sent: esp(suite("null-sha256")), held: []*sa.SA{ah()}, mangle: nil, cause: diagnosis.OtherAlgorithm, says: "as esp with null-sha256 instead of ah"})
	all[len(all)-1].sent.IntegrityKey = ah().IntegrityKey
	one(diagnosis.ESN, "ESN unknown", esp(esn), esp(), "esn: true")
	one(diagnosis.ESN, "ESN unknown, HMAC", esp(suite("aes128-sha256"), high(2)), esp(suite("aes128-sha256")), "seq_high: 2")
	one(diagnosis.ESN, "no ESN, AH", ah(), ah(esn), "esn: false")
	one(diagnosis.ESNHigh, "high half is 9", esp(high(9)), esp(esn), "the high half 9 instead of 0")
	one(diagnosis.ESNHigh, "high half is 999", ah(high(999)), ah(high(1000)), "the high half 999 instead of 1000")
	one(diagnosis.ESN, "ESN unknown, and old", esp(high(31)), esp(), "esn: true, seq_high: 31")
	for _, around := range []scene{ // 2^32, whose numbers have two high halves
		{name: "ESN unknown", held: []*sa.SA{esp()}, cause: diagnosis.ESN, says: "seq_high: 5), "},
		{name: "high half is 5", held: []*sa.SA{esp(esn)}, cause: diagnosis.ESNHigh, says: "the high half 5 instead of 0, "},
		{name: "another SA's key", held: []*sa.SA{esp(key(8), high(5)), esp(high(5), named("site-b", 7))}, cause: diagnosis.OtherKey},
		{name: "other source", held: []*sa.SA{esp(high(5), between(public, gateB))}, cause: diagnosis.Addresses},
	} {
		around.name, around.sent, around.first = around.name+", around 2^32", esp(high(5)), 6<<32-2
		around.says += "3 of the 3 frames tried verify"
		add(around)
	}
	one(diagnosis.UnknownSPI, "SPI misread", esp(named("", 0x2002)), esp(), "match no SA: with the key of site-a, 3 of the 3")
	one(diagnosis.Addresses, "other source", esp(between(public, gateB)), esp(), "by site-a, which is from 192.0.2.1 to 192.0.2.2, ")
	one(diagnosis.Addresses, "other source, ESN", esp(between(public, gateB), high(7)), esp(high(7)), "by site-a")
	one(diagnosis.Encapsulation, "UDP unexpected", esp(encap), esp(), "(encap)")
	one(diagnosis.Encapsulation, "UDP expected", esp(), esp(encap), "without the encapsulation")
	add(scene{name: "NAT under AH", sent: ah(transport), held: []*sa.SA{ah(transport, between(netip.Addr{}, hostB)), ah(named("x", 9), transport, key(4))},
		spoil: func(p []byte) []byte { copy(p[12:16], public.AsSlice()); return p }, cause: diagnosis.NATUnderAH, says: "from 10.1.0.1 instead of 203.0.113.9"})
	add(scene{name: "NAT under AH, both", sent: ah(), held: []*sa.SA{ah(between(netip.Addr{}, netip.Addr{})), ah(named("x", 9), key(4))},
		spoil: func(p []byte) []byte { copy(p[12:16], public.AsSlice()); copy(p[16:20], hostB.AsSlice()); return p },
		cause: diagnosis.NATUnderAH, says: "and to 192.0.2.2 instead of 10.2.0.2"})
	one(diagnosis.EncryptionKey, "other encryption key", esp(suite("aes128-sha256"), material(func(b []byte) []byte { slices.Reverse(b); return b })), esp(suite("aes128-sha256")), "reversed")
	one(diagnosis.EncryptionKey, "NULL and not AES", esp(suite("null-sha256")), esp(suite("aes128-sha256")), "null-sha256")
	one(diagnosis.EncryptionKey, "3DES and not AES", esp(suite("3des-sha256")), esp(suite("aes192-sha256")), "3des-sha256")
	add(scene{name: "other pad", sent: esp(), held: []*sa.SA{esp()}, mangle: forge.ZeroPad, cause: diagnosis.Padding, says: "pad_check: false"})
	add(scene{name: "other pad, CBC", sent: esp(suite("aes128-sha256")), held: []*sa.SA{esp(suite("aes128-sha256"))}, mangle: forge.ZeroPad, cause: diagnosis.Padding})
	one(diagnosis.Mode, "transport and not tunnel", esp(transport), esp(between(hostA, hostB)), "its mode is transport")
	for _, mode := range []change{between(gateA, gateB), transport} {
		add(scene{name: "IP-TFS", sent: esp(mode), held: []*sa.SA{esp(mode)}, mangle: forge.NextHeader(wire.ProtoAggFrag), cause: diagnosis.Mode, says: "its mode is IP-TFS (RFC 9347)"})
	}
	add(scene{name: "tunnel and not transport", sent: esp(), held: []*sa.SA{esp(transport, between(gateA, gateB))}, cause: diagnosis.Mode, unsure: true})
	add(scene{name: "padded", sent: ah(suite("sha1"), transport), held: []*sa.SA{ah(suite("sha1"), transport)}, spoil: lengthened, cause: diagnosis.EthernetPadding, says: "without the last 6 bytes"})
	six := between(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"))
	add(scene{name: "padded, IPv6", sent: esp(six), held: []*sa.SA{esp(six)}, cause: diagnosis.EthernetPadding, says: "without the last 6 bytes",
		spoil: func(p []byte) []byte { p[5] += 6; return append(p, 0, 0, 0, 0, 0, 0) }})
	add(scene{name: "NAT under AH, IPv6", sent: ah(six), held: []*sa.SA{ah(six, between(netip.Addr{}, netip.Addr{})), ah(six, named("x", 9), key(4))},
		spoil: func(p []byte) []byte { p[23] ^= 9; return p }, cause: diagnosis.NATUnderAH, says: "from 2001:db8::1 instead of 2001:db8::8"})
	add(scene{name: "cut", sent: esp(), held: []*sa.SA{esp()}, frame: func(f []byte) []byte { return f[:80] }, cut: 40, cause: diagnosis.Cut, says: "3 frames of site-a cannot be judged"})
	add(scene{name: "cut, and nobody knows by how much", sent: ah(), held: []*sa.SA{ah()}, frame: func(f []byte) []byte { return f[:80] }, cause: diagnosis.Cut, unsure: true, says: "3 frames of site-a end before the IP length does"})
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		add(scene{name: "unfinished checksum " + form.String(), sent: esp(), held: []*sa.SA{esp()}, plain: partial, cause: diagnosis.ChecksumOffload, says: "3 of the 3", form: form})
		add(scene{name: "checksum of a host behind a NAT " + form.String(), sent: esp(encap, transport), held: []*sa.SA{esp(encap, transport, between(public, hostB))}, form: form,
			spoil: func(p []byte) []byte { copy(p[12:16], public.AsSlice()); return p }, cause: diagnosis.NATChecksum, unsure: true})
	}
	add(scene{name: "AH over another checksum", sent: ah(transport), held: []*sa.SA{ah(transport)}, plain: partial, spoil: finished, cause: diagnosis.AHChecksum, says: "a NIC completes"})
	add(scene{name: "AH captured before the checksum", sent: ah(), held: []*sa.SA{ah()}, spoil: unfinished, cause: diagnosis.AHChecksum, says: "the right"})
	add(scene{name: "not encrypted yet", sent: esp(), held: []*sa.SA{esp()}, spoil: plaintext(esp()), cause: diagnosis.NotEncrypted, says: "make sense"})
	add(scene{name: "another key", sent: esp(key(200)), held: []*sa.SA{esp(), other}, cause: diagnosis.NothingFound, unsure: true, says: "3 of the 3 tried"})
	add(scene{name: "another key, AH", sent: ah(key(200)), held: []*sa.SA{ah(), ah(key(3), named("x", 9))}, cause: diagnosis.NothingFound, unsure: true})
	inner := esp(transport, named("inner", 0x3003), key(9))
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		add(scene{name: "inside a tunnel " + form.String(), under: inner, sent: esp(), held: []*sa.SA{esp(), esp(transport, named("inner", 0x3003)), other}, form: form,
			cause: diagnosis.OtherKey, says: "All 3 frames of inner fail: with the key of site-b"})
		add(scene{name: "unknown inside a tunnel " + form.String(), under: inner, sent: esp(), held: []*sa.SA{esp(), other}, form: form, cause: diagnosis.UnknownSPI, says: "site-b"})
	}
	add(scene{name: "under an AH", under: inner, sent: ah(transport), held: []*sa.SA{ah(transport), esp(transport, named("inner", 0x3003)), other},
		cause: diagnosis.OtherKey, says: "All 3 frames of inner fail: with the key of site-b"})
	return all
}

// lengthened is a packet whose IP length counts the padding of its frame.
func lengthened(p []byte) []byte {
	p = append(p, 0, 0, 0, 0, 0, 0)
	p[2], p[3] = 0, byte(len(p))
	return p
}

func partial(p []byte) []byte {
	q, _ := wire.Addresses(p, 0)
	wire.PartialSum(p, &q)
	return p
}

// finished is what a NIC makes of a packet under AH.
func finished(p []byte) []byte { return summed(p, wire.UpperSum) }

func unfinished(p []byte) []byte { return summed(p, wire.PartialSum) }

func summed(p []byte, sum func([]byte, *wire.Packet)) []byte {
	q, _ := wire.Addresses(p, 0)
	at := q.Header + (int(p[q.Header+1])+2)*4
	if next := p[q.Header]; next == wire.ProtoIPv4 {
		q, _ = wire.Addresses(p, at)
	} else {
		q.Proto, q.Header = next, at
	}
	sum(p, &q)
	return p
}

// plaintext opens what s sealed, as if it had not been encrypted yet.
func plaintext(s *sa.SA) func([]byte) []byte {
	return func(p []byte) []byte {
		full, err := sa.ProfileByName("full")
		if err != nil {
			panic(err)
		}
		sad := pipeline.NewSAD(full, 1)
		if _, err := sad.Add(s); err != nil {
			panic(err)
		}
		body, trailer, err := status.Split(pipeline.New(sad, pipeline.Options{}).Process(forge.AppendFrame(nil, p)))
		if err != nil || trailer.Reason != status.Verified {
			panic(trailer.Reason)
		}
		clear(body[len(body)-s.Suite.ICVLen:])
		return body[14:trailer.WireLen]
	}
}

// Each cause is found where one thing was made wrong, and nothing else.
func TestCauses(t *testing.T) {
	for _, c := range scenes() {
		t.Run(c.name, func(t *testing.T) {
			found := c.run(t, sent)
			want := append([]diagnosis.Cause{c.cause}, c.further...)
			if len(found) != len(want) {
				t.Fatalf("found %+v, want %v", found, want)
			}
			for i, f := range found {
				if f.Cause != string(want[i]) || f.Certain == c.unsure {
					t.Errorf("found %+v, want %s, certain %v", f, want[i], !c.unsure)
				}
			}
			if !strings.Contains(found[0].Sentence, c.says) {
				t.Errorf("%q does not say %q", found[0].Sentence, c.says)
			}
		})
	}
}
