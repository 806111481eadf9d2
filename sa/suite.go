package sa

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Cipher is the encryption algorithm of an ESP suite.
type Cipher uint8

// The ciphers. NoCipher is that of AH.
const (
	NoCipher         Cipher = iota
	Null                    // RFC 2410
	DESCBC                  // RFC 2405
	TripleDESCBC            // RFC 2451
	AESCBC                  // RFC 3602
	AESCTR                  // RFC 3686
	AESGCM                  // RFC 4106
	AESCCM                  // RFC 4309
	ChaCha20Poly1305        // RFC 7634
	NullGMAC                // RFC 4543, ENCR_NULL_AUTH_AES_GMAC
)

// Integrity is the integrity algorithm of AH, or of an ESP suite whose cipher
// has none of its own.
type Integrity uint8

// The integrity algorithms.
const (
	NoIntegrity Integrity = iota
	HMACMD5               // RFC 2403
	HMACSHA1              // RFC 2404
	HMACSHA256            // RFC 4868
	HMACSHA384            // RFC 4868
	HMACSHA512            // RFC 4868
	AESXCBC               // RFC 3566
	AESCMAC               // RFC 4494
	GMAC                  // RFC 4543, AH only
)

// Suite is a set of algorithms with every length that follows from it, in
// bytes. Suites are comparable; ParseSuite makes them.
type Suite struct {
	Name      string // strongSwan's proposal keywords: aes128gcm16, aes128-sha256, sha256
	Protocol  Protocol
	Cipher    Cipher
	Integrity Integrity

	KeyLen  int // cipher key without salt
	SaltLen int // salt after the key (of the cipher, or of AH's GMAC)
	IVLen   int // explicit IV on the wire (in AH's GMAC: in front of the tag)
	Block   int // ciphertext is a multiple of it, at least 4
	AuthLen int // key of the separate integrity algorithm, without salt
	ICVLen  int // ICV on the wire, without IV
}

// EncryptionKeyLen is the length of the encryption key, its salt included.
func (s Suite) EncryptionKeyLen() int {
	if s.Protocol == AH {
		return 0
	}
	return s.KeyLen + s.SaltLen
}

// IntegrityKeyLen is the length of the integrity key, its salt included.
func (s Suite) IntegrityKeyLen() int {
	if s.Protocol == AH {
		return s.AuthLen + s.SaltLen
	}
	return s.AuthLen
}

func (s Suite) saltNote(field string) string {
	if s.SaltLen > 0 && (field == "encryption_key") == (s.Protocol == ESP) {
		return fmt.Sprintf(" (its %d-byte salt last)", s.SaltLen)
	}
	return ""
}

// Legacy reports whether RFC 8221 advises against the suite: DES, 3DES, MD5, SHA-1.
func (s Suite) Legacy() bool {
	switch {
	case s.Cipher == DESCBC, s.Cipher == TripleDESCBC, s.Integrity == HMACMD5, s.Integrity == HMACSHA1:
		return true
	}
	return false
}

// CounterMode reports whether repeating an IV under one key breaks the suite: CTR and what
// is built on it, GCM, CCM, GMAC, and ChaCha20 (RFC 4106 section 3.1, RFC 4543 section
// 3.1).
func (s Suite) CounterMode() bool {
	switch s.Cipher {
	case AESCTR, AESGCM, AESCCM, ChaCha20Poly1305, NullGMAC:
		return true
	}
	return s.Integrity == GMAC
}

// NonceKey is the key that is used with nonces made of sequence numbers, salt included, where
// the SA's suite is in CounterMode.
func (s *SA) NonceKey() Key {
	if s.Protocol == AH {
		return s.IntegrityKey
	}
	return s.EncryptionKey
}

// Algorithms gives the keywords of the suite's one or two algorithms, as profiles list
// them.
func (s Suite) Algorithms() []string {
	if s.Name == "" {
		return nil
	}
	return strings.Split(s.Name, "-")
}

// ciphers and integrities hold every keyword with its lengths.
var ciphers, integrities = cipherTable(), map[string]Suite{
	"md5":        {Integrity: HMACMD5, AuthLen: 16, ICVLen: 12},
	"sha1":       {Integrity: HMACSHA1, AuthLen: 20, ICVLen: 12},
	"sha256":     {Integrity: HMACSHA256, AuthLen: 32, ICVLen: 16},
	"sha256_96":  {Integrity: HMACSHA256, AuthLen: 32, ICVLen: 12},
	"sha384":     {Integrity: HMACSHA384, AuthLen: 48, ICVLen: 24},
	"sha512":     {Integrity: HMACSHA512, AuthLen: 64, ICVLen: 32},
	"aesxcbc":    {Integrity: AESXCBC, AuthLen: 16, ICVLen: 12},
	"aescmac":    {Integrity: AESCMAC, AuthLen: 16, ICVLen: 12},
	"aes128gmac": {Integrity: GMAC, AuthLen: 16, SaltLen: 4, IVLen: 8, ICVLen: 16},
	"aes192gmac": {Integrity: GMAC, AuthLen: 24, SaltLen: 4, IVLen: 8, ICVLen: 16},
	"aes256gmac": {Integrity: GMAC, AuthLen: 32, SaltLen: 4, IVLen: 8, ICVLen: 16},
}

func cipherTable() map[string]Suite {
	t := map[string]Suite{
		"null":             {Cipher: Null, Block: 4},
		"des":              {Cipher: DESCBC, KeyLen: 8, IVLen: 8, Block: 8},
		"3des":             {Cipher: TripleDESCBC, KeyLen: 24, IVLen: 8, Block: 8},
		"chacha20poly1305": {Cipher: ChaCha20Poly1305, KeyLen: 32, SaltLen: 4, IVLen: 8, Block: 4, ICVLen: 16},
	}
	for _, n := range []int{16, 24, 32} {
		aes := "aes" + strconv.Itoa(n*8)
		t[aes] = Suite{Cipher: AESCBC, KeyLen: n, IVLen: 16, Block: 16}
		t[aes+"ctr"] = Suite{Cipher: AESCTR, KeyLen: n, SaltLen: 4, IVLen: 8, Block: 4}
		t[aes+"gmac"] = Suite{Cipher: NullGMAC, KeyLen: n, SaltLen: 4, IVLen: 8, Block: 4, ICVLen: 16}
		for _, icv := range []int{8, 12, 16} {
			t[aes+"gcm"+strconv.Itoa(icv)] = Suite{Cipher: AESGCM, KeyLen: n, SaltLen: 4, IVLen: 8, Block: 4, ICVLen: icv}
			t[aes+"ccm"+strconv.Itoa(icv)] = Suite{Cipher: AESCCM, KeyLen: n, SaltLen: 3, IVLen: 8, Block: 4, ICVLen: icv}
		}
	}
	return t
}

// aliases are further keywords that strongSwan takes for the same algorithm;
// ICV lengths may also be given in bits (aes128gcm128).
func canonical(word string) string {
	switch word {
	case "sha":
		return "sha1"
	case "sha2_256":
		return "sha256"
	case "sha2_384":
		return "sha384"
	case "sha2_512":
		return "sha512"
	case "aes":
		return "aes128"
	}
	for _, mode := range []string{"gcm", "ccm"} {
		if head, icv, ok := strings.Cut(word, mode); ok {
			switch icv {
			case "", "128":
				return head + mode + "16"
			case "96":
				return head + mode + "12"
			case "64":
				return head + mode + "8"
			}
		}
	}
	return word
}

// ParseSuite reads a proposal as strongSwan writes it: one keyword for AH and
// for combined-mode ESP, cipher-integrity otherwise. A cipher alone is a suite
// without integrity.
func ParseSuite(p Protocol, text string) (Suite, error) {
	words := strings.Split(strings.ToLower(text), "-")
	for i := range words {
		words[i] = canonical(words[i])
	}
	if p == AH {
		return parseAH(text, words)
	}
	return parseESP(text, words)
}

func parseAH(text string, words []string) (Suite, error) {
	s, ok := integrities[words[0]]
	if !ok || len(words) != 1 {
		return Suite{}, fmt.Errorf("expected %s for AH, found %s", OneOf(slices.Sorted(maps.Keys(integrities))), Quote(text))
	}
	s.Name, s.Protocol = words[0], AH
	return s, nil
}

func parseESP(text string, words []string) (Suite, error) {
	s, ok := ciphers[words[0]]
	if !ok {
		return Suite{}, fmt.Errorf("expected a cipher (%s), found %s", OneOf(slices.Sorted(maps.Keys(ciphers))), Quote(words[0]))
	}
	s.Name, s.Protocol = words[0], ESP
	if len(words) == 1 {
		return s, nil
	}
	a, ok := integrities[words[1]]
	switch {
	case !ok || a.Integrity == GMAC || len(words) > 2:
		return Suite{}, fmt.Errorf("expected CIPHER or CIPHER-INTEGRITY (%s), found %s", OneOf(slices.Sorted(maps.Keys(integrities))), Quote(text))
	case s.ICVLen > 0:
		return Suite{}, fmt.Errorf("%s brings its own integrity; leave out %s", words[0], Quote(words[1]))
	}
	s.Name += "-" + words[1]
	s.Integrity, s.AuthLen, s.ICVLen = a.Integrity, a.AuthLen, a.ICVLen
	return s, nil
}

// Suites lists every suite with integrity for a protocol, by name.
func Suites(p Protocol) []Suite {
	names := slices.Sorted(maps.Keys(integrities))
	if p != AH {
		integrities := names
		names = nil
		for _, cipher := range slices.Sorted(maps.Keys(ciphers)) {
			names = append(names, cipher)
			for _, integrity := range integrities {
				names = append(names, cipher+"-"+integrity)
			}
		}
	}
	var all []Suite
	for _, name := range names {
		if s, err := ParseSuite(p, name); err == nil && s.ICVLen > 0 {
			all = append(all, s)
		}
	}
	return all
}

// OneOf names a choice for a message: "a, b or c".
func OneOf(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

// Few names the first of many for a message, and says how many more there are.
func Few(names []string, most int, between string) string {
	text := strings.Join(names[:min(len(names), most)], between)
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
