package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tapsec/sa"
)

// The lines of `setkey -D` (ipsec-tools, and the BSDs): two addresses, perhaps with ports, then
// the SA's properties, indented.
var (
	setkeyEnds = regexp.MustCompile(`^\s*([0-9a-fA-F.:]+)(?:%\w+)?(?:\[\d+\])? ([0-9a-fA-F.:]+)(?:%\w+)?(?:\[\d+\])?\s*$`)
	setkeySA   = regexp.MustCompile(`^\s+(esp|ah|esp-udp|ipcomp) mode=(\w+) spi=\d+\(0x([0-9a-f]+)\)`)
	setkeyKey  = regexp.MustCompile(`^\s+([EA]): (\S+)\s*((?:[0-9a-f]{2,8}\s*)*)$`)
	setkeyRest = regexp.MustCompile(`^\s+seq=\S+ replay=(\d+) .*\bstate=(\w+)`)
)

// setkeyNames are the keywords of the algorithms; {k} as in ciphers.
var setkeyNames = map[string]string{
	"null": "null", "des-cbc": "des", "3des-cbc": "3des", "aes-cbc": "aes{k}", "rijndael-cbc": "aes{k}", "aes-ctr": "aes{k}ctr",
	"aes-gcm-16": "aes{k}gcm16", "chacha20-poly1305": "chacha20poly1305",
	"hmac-md5": "md5", "hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha2-256": "sha256", "hmac-sha384": "sha384",
	"hmac-sha2-384": "sha384", "hmac-sha512": "sha512", "hmac-sha2-512": "sha512", "aes-xcbc-mac": "aesxcbc",
	"aes128-gmac": "aes128gmac", "aes192-gmac": "aes192gmac", "aes256-gmac": "aes256gmac",
}

// parseSetkey reads the output of setkey -D, which lists the newest first. Its seq is not a
// sequence number, and its replay window counts bytes, of eight packets each.
func parseSetkey(text string) *found {
	f := &found{}
	var src, dst netip.Addr
	var cur *keyed
	end := func() {
		if cur != nil {
			f.all = append(f.all, cur.finish())
		}
		cur = nil
	}
	for i, line := range strings.Split(text, "\n") {
		if m := setkeyEnds.FindStringSubmatch(line); m != nil {
			end()
			src, dst = address(m[1]), address(m[2])
		} else if m := setkeySA.FindStringSubmatch(line); m != nil {
			end()
			cur = &keyed{parsed: parsed{SA: newSA(), line: i + 1}}
			cur.Src, cur.Dst = src, dst
			cur.header(m)
		} else if m := setkeyKey.FindStringSubmatch(line); m != nil && cur != nil {
			cur.key(m[1] == "E", m[2], strings.Join(strings.Fields(m[3]), ""))
		} else if m := setkeyRest.FindStringSubmatch(line); m != nil && cur != nil {
			cur.rest(m)
		}
	}
	end()
	slices.Reverse(f.all)
	return f
}

// keyed is an SA whose cipher and integrity algorithm are on separate lines.
type keyed struct {
	parsed
	cipher, integrity string // keywords
	larval            bool
}

func (k *keyed) header(m []string) {
	k.err = k.Protocol.UnmarshalText([]byte(strings.TrimSuffix(m[1], "-udp")))
	if m[1] == "esp-udp" {
		k.Encap, k.Src = true, netip.Addr{} // a NAT may change it
	}
	spi, _ := strconv.ParseUint(m[3], 16, 32)
	k.SPI = uint32(spi)
	if m[2] == "any" {
		k.Mode = sa.Auto
	} else if err := k.Mode.UnmarshalText([]byte(m[2])); err != nil && k.err == nil {
		k.err = err
	}
}

// key takes an algorithm, by its name in setkeyNames, and its key.
func (k *keyed) key(cipher bool, name, digits string) {
	var key sa.Key
	var err error
	if digits != "" {
		key, err = sa.ParseKey(digits)
	}
	word, known := setkeyNames[name]
	switch {
	case k.err != nil:
	case err != nil:
		k.err = err
	case !known:
		k.err = fmt.Errorf("the algorithm %s is not supported", sa.Quote(name))
	case cipher:
		k.EncryptionKey = key
		k.cipher, k.err = keyword(word, key.Len())
	case word != "null":
		k.integrity, k.IntegrityKey = word, key
	}
}

// keyword puts the length of a cipher's key into its keyword.
func keyword(word string, keyLen int) (string, error) {
	for _, c := range ciphers {
		if c.word == word || fill(c.word, 0, 16) == fill(word, 0, 16) {
			return c.keyword(keyLen, 128)
		}
	}
	return word, nil
}

func (k *keyed) rest(m []string) {
	if bytes, err := strconv.ParseUint(m[1], 10, 16); err == nil && sa.ValidWindow(bytes*8) {
		k.Window = uint32(bytes * 8)
	}
	k.larval = m[2] == "larval"
	k.ended = m[2] == "dead"
}

// finish puts the SA together.
func (k *keyed) finish() parsed {
	if k.err == nil && (k.larval || k.cipher+k.integrity == "") {
		k.err = errNoKeys
	}
	if k.err == nil {
		k.Suite, k.err = sa.ParseSuite(k.Protocol, strings.Trim(k.cipher+"-"+k.integrity, "-"))
	}
	return k.parsed
}

var errNoKeys = errors.New("it has no keys; a larval state gets them when IKE is done")
