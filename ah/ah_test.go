package ah

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

func testSA(t testing.TB, suite string, esn bool) *sa.SA {
	t.Helper()
	su, err := sa.ParseSuite(sa.AH, suite)
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{7}, su.IntegrityKeyLen())
	return &sa.SA{Name: suite, SPI: 0x1002, Protocol: sa.AH, Mode: sa.Transport, Suite: su, IntegrityKey: sa.NewKey(key), ESN: esn}
}

// signed is an IP packet with the AH of an SA in front of payload. header is
// all that stands in front of the AH, whose last next-header byte names it.
func signed(t testing.TB, s *sa.SA, header, payload []byte, number uint64) ([]byte, *wire.Packet) {
	t.Helper()
	out, err := NewOutbound(s)
	if err != nil {
		t.Fatal(err)
	}
	b := append(out.Append(bytes.Clone(header), 17, number), payload...)
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
	if err != nil || p.Proto != wire.ProtoAH {
		t.Fatalf("%v, next header %d", err, p.Proto)
	}
	if err := out.Sign(b, &p, number); err != nil {
		t.Fatal(err)
	}
	return b, &p
}

// Headers in front of an AH: bare, and with options that may change and may
// not.
func ipv4(options ...byte) []byte {
	b := []byte{0x45 + byte(len(options)/4), 0x10, 0, 0, 1, 2, 0x40, 0, 64, 51, 9, 9, 10, 1, 0, 1, 10, 2, 0, 2}
	return append(b, options...)
}

func ipv6(chain ...byte) []byte {
	b := append([]byte{0x6a, 0xbc, 0xde, 0xf0, 0, 0, 51, 64}, bytes.Repeat([]byte{0x20, 1}, 16)...)
	if len(chain) > 0 {
		b[6] = chain[0]
	}
	if len(chain) > 1 {
		b = append(b, chain[1:]...)
	}
	return b
}

var headers = map[string][]byte{
	"IPv4":         ipv4(),
	"IPv4 options": ipv4(148, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4, 1, 130, 3, 9, 0),
	"IPv6":         ipv6(51),
	"IPv6 options": ipv6(0, 60, 0, 0x3e, 4, 1, 2, 3, 4, 51, 0, 0x1e, 2, 1, 2, 0, 0),
	"IPv6 Pad1":    ipv6(60, 51, 0, 0, 0x3e, 1, 9, 0, 0),
	// The address in the routing header would be an option that may change.
	// After a header that is longer than 8 bytes, which hides a routing header from who steps over it wrongly.
	"IPv6 options, routing": ipv6(60, 43, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 6, 1, 2, 3, 4, 5, 6, 51, 2, 0, 0, 0, 0, 0, 0, 0x3e, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14),
	"IPv6 routing":          ipv6(43, 60, 2, 0, 0, 0, 0, 0, 0, 0x3e, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 51, 0, 0x3e, 4, 1, 2, 3, 4),
}

// covered is the ICV's input by the letter of RFC 4302 section 3.3.3, written
// for the headers above alone: the bytes that may change, listed by hand.
func covered(packet []byte, name string, ah, icv int, esn bool, number uint64) []byte {
	b := bytes.Clone(packet)
	zero := map[string][]int{
		"IPv4":         {1, 6, 7, 8, 10, 11},
		"IPv4 options": {1, 6, 7, 8, 10, 11, 24, 25, 26, 27, 28, 29, 30},
		"IPv6":         {1, 2, 3, 7},
		"IPv6 options": {1, 2, 3, 7, 44, 45, 46, 47},
		"IPv6 Pad1":    {1, 2, 3, 7, 45},
		"IPv6 routing": {1, 2, 3, 7, 68, 69, 70, 71},

		"IPv6 options, routing": {1, 2, 3, 7, 44, 45, 46, 47},
	}[name]
	for _, i := range zero {
		b[i] = 0
	}
	if b[0]>>4 == 6 {
		b[0] = 0x60
	}
	clear(b[ah+12 : ah+12+icv])
	if esn {
		b = binary.BigEndian.AppendUint32(b, uint32(number>>32))
	}
	return b
}

// The ICV is the MAC over what the RFC says, computed here by the standard
// library alone.
func TestICVCoversWhatTheRFCSays(t *testing.T) {
	const number = 5<<32 | 9
	for name, header := range headers {
		for _, esn := range []bool{false, true} {
			s := testSA(t, "sha256", esn)
			b, p := signed(t, s, header, []byte("payload"), number)
			m := hmac.New(sha256.New, s.IntegrityKey.Bytes())
			m.Write(covered(b, name, p.Header, 16, esn, number))
			if got, want := b[p.Header+12:p.Header+28], m.Sum(nil)[:16]; !bytes.Equal(got, want) {
				t.Errorf("%s, ESN %v: ICV % x, want % x", name, esn, got, want)
			}
		}
	}
}

// Of IPv4's options seven are covered by the AH; every other one, known or not,
// may change wholly (RFC 4302 appendix A1; contract, headers in detail).
func TestImmutableIPv4Options(t *testing.T) {
	kept := map[byte]bool{130: true, 133: true, 134: true, 148: true, 149: true}
	s := testSA(t, "sha256", false)
	in, err := NewInbound(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	var scratch Scratch
	for option := 2; option < 256; option++ {
		want := status.Verified
		if kept[byte(option)] {
			want = status.AHICV
		}
		for _, changed := range [][2]byte{{99, 8}, {byte(option), 9}} { // its type, its data
			b, p := signed(t, s, ipv4(byte(option), 4, 8, 8), []byte("payload"), 1)
			b[20], b[22] = changed[0], changed[1]
			if got := in.Verify(0, b, p, 1, &scratch); got != want {
				t.Errorf("option %d, then %v: %s, want %s", option, changed, got, want)
			}
		}
	}
	for _, turned := range [][2]byte{{0, 1}, {1, 0}} { // end and no-op are the other two
		b, p := signed(t, s, ipv4(1, 1, 1, turned[0]), []byte("payload"), 1)
		b[23] = turned[1]
		if got := in.Verify(0, b, p, 1, &scratch); got != status.AHICV {
			t.Errorf("option %d turned %d: %s", turned[0], turned[1], got)
		}
	}
}

// GMAC's IV counts as it was sent, its tag as zero (contract, Algorithms).
func TestGMACCoversItsIV(t *testing.T) {
	const number = 9
	s := testSA(t, "aes128gmac", false)
	b, p := signed(t, s, headers["IPv4"], []byte("payload"), number)
	input := covered(b, "IPv4", p.Header, 0, false, number)
	iv, tag := input[p.Header+12:p.Header+20], input[p.Header+20:p.Header+36]
	clear(tag)
	block, err := aes.NewCipher(s.IntegrityKey.Bytes()[:16])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	want := gcm.Seal(nil, append(bytes.Clone(s.IntegrityKey.Bytes()[16:]), iv...), nil, input)
	if got := b[p.Header+20 : p.Header+36]; !bytes.Equal(got, want) {
		t.Errorf("tag % x, want % x", got, want)
	}
}

// Every suite verifies what it signed, and notices every bit that it covers.
func TestVerifyEverySuite(t *testing.T) {
	var scratch Scratch
	for _, su := range sa.Suites(sa.AH) {
		for name, header := range headers {
			s := testSA(t, su.Name, true)
			const number = 3<<32 | 7
			b, p := signed(t, s, header, []byte("payload"), number)
			in, err := NewInbound(s, 2)
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(b)
			for worker := range 2 {
				if got := in.Verify(worker, b, p, number, &scratch); got != status.Verified {
					t.Errorf("%s, %s: %s", su.Name, name, got)
				}
			}
			if !bytes.Equal(b, before) {
				t.Errorf("%s, %s: the packet was changed", su.Name, name)
			}
			if got, want := in.ICV(0, b, p, number, &scratch), b[p.Header+FixedLen+su.IVLen:][:su.ICVLen]; !bytes.Equal(got, want) {
				t.Errorf("%s, %s: it would be %x, want %x", su.Name, name, got, want)
			}
			if got := in.Verify(0, b, p, number+1<<32, &scratch); got != status.AHICV {
				t.Errorf("%s, %s, another high half: %s", su.Name, name, got)
			}
			for i := p.Header; i < len(b); i++ {
				if i == p.Header+1 {
					continue // its length
				}
				b[i] ^= 0x80
				if got := in.Verify(0, b, p, number, &scratch); got != status.AHICV {
					t.Errorf("%s, %s, byte %d: %s", su.Name, name, i, got)
				}
				b[i] ^= 0x80
			}
		}
	}
}

// The lengths that an AH may have (RFC 4302 section 3.3.3.2.1).
func TestFits(t *testing.T) {
	for suite, f := range map[string]struct{ v4, v6 []int }{
		"sha256":     {[]int{28, 32}, []int{32}},
		"sha1":       {[]int{24}, []int{24}},
		"sha384":     {[]int{36, 40}, []int{40}},
		"sha512":     {[]int{44, 48}, []int{48}},
		"aes128gmac": {[]int{36, 40}, []int{40}},
	} {
		in, err := NewInbound(testSA(t, suite, false), 1)
		if err != nil {
			t.Fatal(err)
		}
		for words := range 256 {
			n := (words + 2) * 4
			b := []byte{0, byte(words)}
			for version, want := range map[uint8][]int{4: f.v4, 6: f.v6} {
				fits := false
				for _, w := range want {
					fits = fits || w == n
				}
				if in.Fits(b, version) != fits {
					t.Errorf("%s, IPv%d, %d bytes: %v", suite, version, n, !fits)
				}
			}
		}
	}
}

// An AH as long as another SA's, and one that ends behind the packet (contract, Row 23); and an ICV of options that
// do not parse, which there is none of.
func TestVerifyLengths(t *testing.T) {
	s := testSA(t, "sha256", false)
	in, err := NewInbound(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	var scratch Scratch
	b, p := signed(t, s, ipv4(1, 1, 1, 1), make([]byte, 40), 1)
	for _, words := range []byte{0, 4, 7, 9, 10, 255} {
		was := b[p.Header+1]
		b[p.Header+1] = words
		if got := in.Verify(0, b, p, 1, &scratch); got != status.AHLength {
			t.Errorf("%d words: %s", words, got)
		}
		b[p.Header+1] = was
	}
	short := *p
	for short.End = p.Header + 8; short.End < p.Header+Len(b[p.Header:]); short.End++ {
		if got := in.Verify(0, b, &short, 1, &scratch); got != status.AHLength {
			t.Errorf("%d bytes: %s", short.End-p.Header, got)
		}
	}
	if b[20], b[21] = 7, 9; in.ICV(0, b, p, 1, &scratch) != nil || in.Verify(0, b, p, 1, &scratch) != status.OptionSyntax {
		t.Error("options that do not parse have an ICV")
	}
}

func TestNewInboundRefusesKeys(t *testing.T) {
	s := testSA(t, "sha256", false)
	s.IntegrityKey = sa.NewKey(make([]byte, 31))
	if _, err := NewInbound(s, 1); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
}

// FuzzVerify: no packet panics, none is changed, and one that verifies differs
// from a signed one in mutable bytes only.
func FuzzVerify(f *testing.F) {
	s := testSA(f, "sha256", false)
	in, err := NewInbound(s, 1)
	if err != nil {
		f.Fatal(err)
	}
	for _, header := range headers {
		b, _ := signed(f, s, header, []byte("payload"), 1)
		f.Add(b)
	}
	var scratch Scratch
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<16-1 {
			return
		}
		p, err := wire.ParseIP(b, 0, len(b), b[0]>>4)
		if err != nil || p.Proto != wire.ProtoAH || p.Short || p.Routed || p.OddRoute || p.Fragment || p.Jumbo || p.Header+FixedLen > p.End {
			return // what the pipeline never asks for
		}
		before := bytes.Clone(b)
		got := in.Verify(0, b, &p, 1, &scratch)
		if !bytes.Equal(b, before) {
			t.Fatal("the packet was changed")
		}
		switch got {
		case status.Verified, status.AHICV, status.AHLength, status.OptionSyntax:
		default:
			t.Fatalf("reason %s", got)
		}
		if got == status.AHLength == (in.Fits(b[p.Header:], p.Version) && p.Header+Len(b[p.Header:]) <= p.End) {
			t.Fatalf("%s of an AH of %d bytes in %d", got.String(), Len(b[p.Header:]), p.End-p.Header)
		}
		if got == status.Verified && !bytes.HasSuffix(b[:p.End], []byte("payload")) {
			t.Fatal("a packet that nobody signed verifies")
		}
	})
}

// Of the bits of an IPv6 option's type 0x20 alone says that its data may change on
// the way (RFC 8200 section 4.2; contract, Headers in detail).
func TestMutableIPv6Options(t *testing.T) {
	for kind := 1; kind < 256; kind++ { // 0 is Pad1, which has no data
		options := []byte{0, byte(kind), 2, 0xaa, 0xbb, 0}
		want := bytes.Clone(options)
		if kind&0x20 != 0 {
			want[3], want[4] = 0, 0
		}
		if !zeroOptions(options) || !bytes.Equal(options, want) {
			t.Errorf("option %#02x: %x, want %x", kind, options, want)
		}
	}
}
