package keys

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tapsec/sa"
)

// The algorithms as each tool spells them; empty if it has none. In words {k} stands for the
// bits of the key and {i} for the bytes of the ICV.
type cipher struct {
	cipher sa.Cipher
	word   string // the suite's keyword
	salt   int    // bytes of the key that are salt
	names
}

// names are those of an algorithm, by tool.
type names [3]string

// tool is one that has its own names for algorithms.
type tool int

const (
	linux    tool = iota
	espTable      // Wireshark's
	charonLog
)

var (
	ciphers = []cipher{
		{sa.Null, "null", 0, names{"ecb(cipher_null)", "NULL", "NULL"}},
		{sa.DESCBC, "des", 0, names{"cbc(des)", "DES-CBC [RFC2405]", "DES_CBC"}},
		{sa.TripleDESCBC, "3des", 0, names{"cbc(des3_ede)", "TripleDES-CBC [RFC2451]", "3DES_CBC"}},
		{sa.AESCBC, "aes{k}", 0, names{"cbc(aes)", "AES-CBC [RFC3602]", "AES_CBC"}},
		{sa.AESCTR, "aes{k}ctr", 4, names{"rfc3686(ctr(aes))", "AES-CTR [RFC3686]", "AES_CTR"}},
		{sa.AESGCM, "aes{k}gcm{i}", 4, names{"rfc4106(gcm(aes))", "AES-GCM with {i} octet ICV [RFC4106]", "AES_GCM_{i}"}},
		{sa.AESCCM, "aes{k}ccm{i}", 3, names{"rfc4309(ccm(aes))", "", "AES_CCM_{i}"}},
		{sa.NullGMAC, "aes{k}gmac", 4, names{"rfc4543(gcm(aes))", "", "NULL_AES_GMAC"}},
		{sa.ChaCha20Poly1305, "chacha20poly1305", 4, names{"rfc7539esp(chacha20,poly1305)", "ChaCha20 with Poly1305 [RFC7634]", "CHACHA20_POLY1305"}},
	}
	integrities = []struct {
		word string
		bits int // of the ICV
		names
	}{
		{"sha256_96", 96, names{"hmac(sha256)", "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]", "HMAC_SHA2_256_96"}}, // Linux's own default
		{"sha256", 128, names{"hmac(sha256)", "HMAC-SHA-256-128 [RFC4868]", "HMAC_SHA2_256_128"}},
		{"md5", 96, names{"hmac(md5)", "HMAC-MD5-96 [RFC2403]", "HMAC_MD5_96"}},
		{"sha1", 96, names{"hmac(sha1)", "HMAC-SHA-1-96 [RFC2404]", "HMAC_SHA1_96"}},
		{"sha384", 192, names{"hmac(sha384)", "HMAC-SHA-384-192 [RFC4868]", "HMAC_SHA2_384_192"}},
		{"sha512", 256, names{"hmac(sha512)", "HMAC-SHA-512-256 [RFC4868]", "HMAC_SHA2_512_256"}},
		{"aesxcbc", 96, names{"xcbc(aes)", "", "AES_XCBC_96"}},
		{"aescmac", 96, names{"cmac(aes)", "", "AES_CMAC_96"}},
	}
	// linuxAliases are names that Linux also takes.
	linuxAliases = map[string]string{
		"cipher_null": "ecb(cipher_null)", "aes": "cbc(aes)", "des": "cbc(des)", "des3_ede": "cbc(des3_ede)",
		"md5": "hmac(md5)", "sha1": "hmac(sha1)", "sha256": "hmac(sha256)",
	}
)

// cipher finds a cipher by its name, and the bytes of the ICV that the name tells, else 16.
func (t tool) cipher(name string) (cipher, int, error) {
	var known []string
	for _, c := range ciphers {
		for _, icv := range []int{16, 12, 8} {
			if own := fill(c.names[t], 0, icv); own != "" && strings.EqualFold(own, name) { // save-keys had TripleDes once
				return c, icv, nil
			}
		}
		known = append(known, fill(c.names[t], 0, 16))
	}
	return cipher{}, 0, unsupported(name, known)
}

// integrity is the keyword of an integrity algorithm by its name; empty if there is none.
func (t tool) integrity(name string) string {
	for _, i := range integrities {
		if own := i.names[t]; own != "" && strings.EqualFold(own, name) {
			return i.word
		}
	}
	return ""
}

// of gives the names of a suite's algorithms; empty if it has none.
func (t tool) of(s sa.Suite) (cipher, integrity string) {
	for _, c := range ciphers {
		if c.cipher == s.Cipher {
			cipher = fill(c.names[t], 0, s.ICVLen)
		}
	}
	for _, i := range integrities {
		if i.word == integrityWord(s) {
			integrity = i.names[t]
		}
	}
	return cipher, integrity
}

// linuxCipher gives the keyword for Linux's name of a cipher; icvBits is 0 if it has no ICV of
// its own.
func linuxCipher(name string, keyLen, icvBits int) (string, error) {
	c, _, err := linux.cipher(cmp.Or(linuxAliases[name], name))
	if err != nil {
		return "", err
	}
	return c.keyword(keyLen, icvBits)
}

// unsupported says that an algorithm is none of those that are known, in the words of its tool.
func unsupported(name string, known []string) error {
	known = slices.DeleteFunc(known, func(k string) bool { return k == "" })
	slices.Sort(known)
	return fmt.Errorf("the algorithm %s is not supported, only %s", sa.Quote(name), strings.Join(slices.Compact(known), ", "))
}

// linuxIntegrity gives the keyword for Linux's name of an integrity algorithm; with icvBits 0
// the ICV has Linux's length without auth-trunc.
func linuxIntegrity(name string, icvBits int) (string, error) {
	if name == "digest_null" {
		return "", errors.New("digest_null checks nothing, and tapsec opens nothing unchecked")
	}
	name = cmp.Or(linuxAliases[name], name)
	for _, i := range integrities {
		if i.names[linux] == name && (icvBits == 0 || icvBits == i.bits) {
			return i.word, nil
		}
	}
	var known, bits []string
	for _, i := range integrities {
		known = append(known, i.names[linux])
		if i.names[linux] == name {
			bits = append(bits, strconv.Itoa(i.bits))
		}
	}
	if len(bits) == 0 {
		return "", unsupported(name, known)
	}
	return "", fmt.Errorf("the algorithm %s with an ICV of %d bits is not supported, only with %s", sa.Quote(name), icvBits, strings.Join(bits, " or "))
}

// keyword is that of a cipher with a key of some bytes, salt included, and an ICV of
// some bits.
func (c cipher) keyword(keyLen, icvBits int) (string, error) {
	word := fill(c.word, keyLen-c.salt, icvBits/8)
	s, err := sa.ParseSuite(sa.ESP, word)
	if err == nil && s.EncryptionKeyLen() == keyLen && icvBits%8 == 0 {
		return word, nil
	}
	var lengths []string
	for _, n := range []int{0, 8, 16, 24, 32} {
		if s, err := sa.ParseSuite(sa.ESP, fill(c.word, n, 16)); err == nil && s.KeyLen == n {
			lengths = append(lengths, strconv.Itoa(n+c.salt))
		}
	}
	if slices.Contains(lengths, strconv.Itoa(keyLen)) {
		return "", fmt.Errorf("expected an ICV of 64, 96 or 128 bits, found %d", icvBits)
	}
	return "", fmt.Errorf("expected a key of %s bytes, found %d", sa.OneOf(lengths), keyLen)
}

// fill puts lengths into a word.
func fill(word string, keyLen, icvLen int) string {
	return strings.ReplaceAll(strings.ReplaceAll(word, "{k}", strconv.Itoa(keyLen*8)), "{i}", strconv.Itoa(icvLen))
}

// integrityWord is the keyword of a separate integrity algorithm.
func integrityWord(s sa.Suite) string {
	words := s.Algorithms()
	if s.Integrity == sa.NoIntegrity || len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}
