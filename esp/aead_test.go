package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tapsec/internal/mac"
)

// newNamed makes the suite that a vector file or a row of suites names: a
// cipher, perhaps + and a MAC, and the ICV's length where there is a choice.
func newNamed(name string, key, salt, auth []byte) (cipher.AEAD, error) {
	icv := 0
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		if n, err := strconv.Atoi(name[i+1:]); err == nil {
			name, icv = name[:i], n
		}
	}
	switch name {
	case "aes-gcm":
		return newGCM(key, salt, icv)
	case "aes-ccm":
		return newCCM(key, salt, icv)
	case "aes-gmac":
		return newGMAC(key, salt)
	case "chacha20-poly1305":
		return newChaCha20Poly1305(key, salt)
	}
	enc, integrity, _ := strings.Cut(name, "+")
	m, err := namedMode(enc, key, salt)
	if err != nil {
		return nil, err
	}
	h, err := namedMAC(integrity, auth)
	if err != nil {
		return nil, err
	}
	return newComposite(m, h, icv), nil
}

func namedMode(name string, key, salt []byte) (cipherMode, error) {
	switch name {
	case "null":
		return null{}, nil
	case "aes-cbc":
		return newCBC(aes.NewCipher, key)
	case "3des-cbc":
		return newCBC(des.NewTripleDESCipher, key)
	case "des-cbc":
		return newCBC(des.NewCipher, key)
	case "aes-ctr":
		return newCTR(key, salt)
	}
	return nil, fmt.Errorf("no cipher %q", name)
}

func namedMAC(name string, key []byte) (hash.Hash, error) {
	switch name {
	case "":
		return nil, nil
	case "hmac-md5":
		return mac.HMACMD5(key)
	case "hmac-sha1":
		return mac.HMACSHA1(key)
	case "hmac-sha256":
		return mac.HMACSHA256(key)
	case "hmac-sha384":
		return mac.HMACSHA384(key)
	case "hmac-sha512":
		return mac.HMACSHA512(key)
	case "xcbc":
		return mac.XCBC(key)
	case "cmac":
		return mac.CMAC(key)
	}
	return nil, fmt.Errorf("no MAC %q", name)
}

// suites is every kind of suite of the contract, Algorithms, with the lengths of
// its keys.
var suites = []struct {
	name            string
	key, salt, auth int
}{
	{"aes-gcm-16", 16, 4, 0}, {"aes-gcm-12", 24, 4, 0}, {"aes-gcm-8", 32, 4, 0},
	{"aes-ccm-16", 16, 3, 0}, {"aes-ccm-12", 24, 3, 0}, {"aes-ccm-8", 32, 3, 0},
	{"aes-gmac", 16, 4, 0}, {"aes-gmac", 32, 4, 0},
	{"chacha20-poly1305", 32, 4, 0},
	{"aes-cbc+hmac-sha256-16", 16, 0, 32}, {"aes-cbc+hmac-sha512-32", 32, 0, 64},
	{"aes-cbc+xcbc-12", 24, 0, 16}, {"aes-cbc", 16, 0, 0},
	{"3des-cbc+hmac-sha1-12", 24, 0, 20}, {"des-cbc+hmac-md5-12", 8, 0, 16},
	{"aes-ctr+hmac-sha384-24", 32, 4, 48}, {"aes-ctr", 16, 4, 0},
	{"null+hmac-sha256-16", 0, 0, 32}, {"null+cmac-12", 0, 0, 16},
}

// eachSuite runs f for every suite, keyed with some bytes.
func eachSuite(t *testing.T, f func(t *testing.T, a cipher.AEAD)) {
	for _, s := range suites {
		t.Run(fmt.Sprintf("%s/%d", s.name, 8*s.key), func(t *testing.T) {
			a, err := newNamed(s.name, some(1, s.key), some(2, s.salt), some(3, s.auth))
			if err != nil {
				t.Fatal(err)
			}
			f(t, a)
		})
	}
}

// some returns n bytes without a pattern that a swapped field could hide in.
func some(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed*59 + i*i*7 + i)
	}
	return b
}

// lengths gives plaintext lengths that a multiple of every block is among.
func lengths(a cipher.AEAD) []int {
	if c, ok := a.(*composite); ok && c.mode.blockSize() > 1 {
		return []int{0, 16, 32, 48, 208, 1408, 9008}
	}
	return []int{0, 1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 200, 1400, 9001}
}

var aads = map[string][]byte{"plain": some(4, 8), "esn": some(5, 12)}

func TestRoundTrip(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		iv := some(6, a.NonceSize())
		for _, n := range lengths(a) {
			for _, aad := range aads {
				text := some(7, n)
				sealed := a.Seal([]byte("head"), iv, text, aad)
				if !bytes.HasPrefix(sealed, []byte("head")) || len(sealed) != 4+n+a.Overhead() {
					t.Fatalf("%d bytes: sealed to %d", n, len(sealed))
				}
				sealed = sealed[4:]
				opened, err := a.Open([]byte("head"), iv, sealed, aad)
				if err != nil || string(opened) != "head"+string(text) {
					t.Fatalf("%d bytes: opened to %d, %v", n, len(opened), err)
				}
				inPlace(t, a, iv, text, sealed, aad)
			}
		}
	})
}

// inPlace checks that dst may be the input cut to nothing, in both directions.
func inPlace(t *testing.T, a cipher.AEAD, iv, text, sealed, aad []byte) {
	t.Helper()
	buf := append(make([]byte, 0, len(sealed)), text...)
	if got := a.Seal(buf[:0], iv, buf, aad); !bytes.Equal(got, sealed) {
		t.Fatalf("%d bytes: sealed in place to something else", len(text))
	}
	buf = slices.Clone(sealed)
	if got, err := a.Open(buf[:0], iv, buf, aad); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes: opened in place to something else: %v", len(text), err)
	}
}

// Neither direction touches what lies behind its result: in a frame that is
// another header's. Seal need not hold to it at lengths that ESP has not: Go's
// GCM with 12-byte tags writes up to 3 bytes too many there (Go 1.26, amd64).
func TestWritesNothingBehindResult(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		iv, aad := some(6, a.NonceSize()), aads["esn"]
		for _, n := range lengths(a) {
			behind := bytes.Repeat([]byte{0xA5}, 64)
			buf := make([]byte, n+a.Overhead()+len(behind))
			copy(buf[n+a.Overhead():], behind)
			sealed := slices.Clone(a.Seal(buf[:0], iv, some(7, n), aad))
			if n%4 == 0 && !bytes.HasSuffix(buf, behind) {
				t.Fatalf("%d bytes: Seal writes behind its result", n)
			}
			copy(buf[n:], behind)
			if _, err := a.Open(buf[:0], iv, sealed, aad); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(buf[n:], behind) {
				t.Fatalf("%d bytes: Open writes behind its result", n)
			}
		}
	})
}

// Every single bit of ICV, ciphertext, IV and additional data counts, and after
// a failure dst holds no plaintext (contract, Bytes of a delivered frame).
func TestBitFlips(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		if a.Overhead() == 0 {
			t.Skip("no integrity: it belongs under AH")
		}
		text := some(7, 48)
		iv := some(6, a.NonceSize())
		for kind, aad := range aads {
			aad := slices.Clone(aad)
			sealed := a.Seal(nil, iv, text, aad)
			for what, field := range map[string][]byte{"sealed": sealed, "iv": iv, "aad": aad} {
				for bit := range 8 * len(field) {
					field[bit/8] ^= 1 << (bit % 8)
					mustRefuse(t, a, iv, sealed, aad, fmt.Sprintf("%s, bit %d of %s", kind, bit, what))
					field[bit/8] ^= 1 << (bit % 8)
				}
			}
			for n := range sealed {
				mustRefuse(t, a, iv, sealed[:n], aad, fmt.Sprintf("%s, cut to %d", kind, n))
			}
		}
	})
}

// mustRefuse opens into a buffer full of a mark, which must still be there or
// be zeros.
func mustRefuse(t *testing.T, a cipher.AEAD, iv, sealed, aad []byte, what string) {
	t.Helper()
	buf := bytes.Repeat([]byte{0xA5}, 128)
	if got, err := a.Open(buf[:0], iv, sealed, aad); err == nil || got != nil {
		t.Fatalf("%s: opened %d bytes, %v", what, len(got), err)
	}
	for i, b := range buf {
		if b != 0xA5 && b != 0 {
			t.Fatalf("%s: byte %d of dst is %#x", what, i, b)
		}
	}
}

// The high half is authenticated with ESN and absent without: the two forms of
// one packet have different ICVs even where the high half is zero.
func TestESNIsAnotherPacket(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		if a.Overhead() == 0 {
			t.Skip("no integrity: it belongs under AH")
		}
		iv, plain := some(6, a.NonceSize()), some(4, 8)
		esn := slices.Concat(plain[:4], make([]byte, 4), plain[4:])
		if _, err := a.Open(nil, iv, a.Seal(nil, iv, some(7, 32), plain), esn); err == nil {
			t.Error("a packet without ESN opens under ESN")
		}
	})
}

// RFC 4303, section 2.2.1: with separate integrity the high half follows the
// ciphertext. NULL encryption shows the MAC's input as it is.
func TestESNOrderOfComposites(t *testing.T) {
	key, text := some(3, 32), some(7, 20)
	h, err := mac.HMACSHA256(key)
	if err != nil {
		t.Fatal(err)
	}
	spi, high, low := some(8, 4), some(9, 4), some(10, 4)
	sealed := newComposite(null{}, h, 16).Seal(nil, nil, text, slices.Concat(spi, high, low))

	h.Reset()
	h.Write(slices.Concat(spi, low, text, high))
	if want := slices.Concat(text, h.Sum(nil)[:16]); !bytes.Equal(sealed, want) {
		t.Errorf("sealed %x, want %x", sealed, want)
	}
}

func TestNoAllocs(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		iv, aad := some(6, a.NonceSize()), aads["esn"]
		sealed := a.Seal(nil, iv, some(7, 1408), aad)
		bad := slices.Clone(sealed)
		bad[0] ^= 1
		text, buf := some(7, 1408), make([]byte, 0, 2048)
		for what, once := range map[string]func(){
			"Seal":              func() { buf = a.Seal(buf[:0], iv, text, aad) },
			"Open":              func() { buf, _ = a.Open(buf[:0], iv, sealed, aad) },
			"Open of a forgery": func() { _, _ = a.Open(buf[:0], iv, bad, aad) },
		} {
			if n := testing.AllocsPerRun(100, once); n != 0 {
				t.Errorf("%s: %v allocations", what, n)
			}
		}
	})
}

func TestConstructorsRefuse(t *testing.T) {
	for _, s := range []struct {
		name            string
		key, salt, auth int
	}{
		{"aes-gcm-16", 15, 4, 0}, {"aes-gcm-16", 16, 3, 0}, {"aes-gcm-13", 16, 4, 0},
		{"aes-gcm-8", 16, 8, 0}, {"aes-ccm-8", 17, 3, 0}, {"aes-ccm-8", 16, 4, 0},
		{"aes-ccm-10", 16, 3, 0}, {"chacha20-poly1305", 16, 4, 0},
		{"chacha20-poly1305", 32, 0, 0}, {"aes-gmac", 16, 0, 0}, {"aes-gmac", 8, 4, 0},
		{"aes-ctr", 16, 8, 0}, {"aes-ctr", 1, 4, 0}, {"aes-cbc", 17, 0, 0},
		{"3des-cbc", 16, 0, 0}, {"des-cbc", 24, 0, 0},
	} {
		if _, err := newNamed(s.name, some(1, s.key), some(2, s.salt), some(3, s.auth)); err == nil {
			t.Errorf("%s takes a key of %d and a salt of %d bytes", s.name, s.key, s.salt)
		}
	}
}

// House rule 2: what only a programmer can get wrong panics.
func TestMisusePanics(t *testing.T) {
	eachSuite(t, func(t *testing.T, a cipher.AEAD) {
		iv := make([]byte, a.NonceSize()+1)
		mustPanic(t, "Seal with a long IV", func() { a.Seal(nil, iv, nil, aads["plain"]) })
		mustPanic(t, "Open with a long IV", func() { _, _ = a.Open(nil, iv, make([]byte, 64), aads["plain"]) })
		if c, ok := a.(*composite); ok {
			iv = iv[1:]
			mustPanic(t, "additional data of 9 bytes", func() { c.Seal(nil, iv, nil, make([]byte, 9)) })
			if c.mode.blockSize() > 1 {
				mustPanic(t, "half a block", func() { c.Seal(nil, iv, make([]byte, 4), aads["plain"]) })
			}
		}
	})
	h, _ := mac.CMAC(make([]byte, 16))
	mustPanic(t, "ICV longer than the tag", func() { newComposite(null{}, h, 17) })
	mustPanic(t, "ICV without a MAC", func() { newComposite(null{}, nil, 12) })
	mustPanic(t, "MAC without an ICV", func() { newComposite(null{}, h, 0) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("no panic: %s", what)
		}
	}()
	f()
}
