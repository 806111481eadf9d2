package keys

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tapsec/sa"
)

// The lines of `setkey -D` (ipsec-tools, and the BSDs): two addresses, with the ports of an SA in
// UDP, then the SA's properties, indented. A key that was too long for a line goes on in the next.
var (
	setkeyEnds = regexp.MustCompile(`^\s*([0-9a-fA-F.:]+)(?:%\w+)?(?:\[(\d+)\])? ([0-9a-fA-F.:]+)(?:%\w+)?(?:\[(\d+)\])?\s*$`)
	setkeySA   = regexp.MustCompile(`^\s+(esp|ah|esp-udp|ipcomp|tcp) mode=(\w+) spi=\d+\(0x([0-9a-f]+)\)(?: reqid=(\d+))?`)
	setkeyKey  = regexp.MustCompile(`^\s+([EA]): (\S+)\s*((?:[0-9a-f]{2,8}\s*)*)$`)
	setkeyAlgo = regexp.MustCompile(`^\s+[EA]: `)
	setkeyMore = regexp.MustCompile(`^\s*[0-9a-f]+(?:\s+[0-9a-f]+)*\s*$`)
	setkeyRest = regexp.MustCompile(`^\s+seq=\S+ replay=(\d+) flags=0x([0-9a-f]+) state=(\w+)`)
	setkeyUsed = regexp.MustCompile(`^\s+sadb_seq=\d+ pid=\d+ refcnt=[1-9]`)
)

// Flags of pfkeyv2.h on the BSDs, whose bits Linux has for nothing of this.
const (
	flagESN  = 0x400 // SADB_X_SAFLAGS_ESN, FreeBSD's
	flagPads = 0x300 // SADB_X_EXT_PMASK: 0 for pad bytes of 1, 2, 3 ..., else random ones or zeros
	flagNATT = 0x002 // SADB_X_EXT_NATT of macOS, whose setkey says esp of ESP in UDP
	flagsOld = 0x031 // SADB_X_EXT_OLD, IV4B, DERIV: no sequence number, an IV of 4 bytes or none
)

// setkeyNames are the keywords of the algorithms; {k} as in ciphers.
var setkeyNames = map[string]string{
	"null": "null", "des-cbc": "des", "3des-cbc": "3des", "aes-cbc": "aes{k}", "rijndael-cbc": "aes{k}", "aes-ctr": "aes{k}ctr",
	"aes-gcm-16": "aes{k}gcm16", "chacha20-poly1305": "chacha20poly1305",
	"hmac-md5": "md5", "hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha2-256": "sha256", "hmac-sha384": "sha384",
	"hmac-sha2-384": "sha384", "hmac-sha512": "sha512", "hmac-sha2-512": "sha512", "aes-xcbc-mac": "aesxcbc",
	"aes128-gmac": "aes128gmac", "aes192-gmac": "aes192gmac", "aes256-gmac": "aes256gmac",
}

// parseSetkey reads the output of setkey -D, which lists the newest first, and commands for
// setkey, which are in order. The seq of the output is not a sequence number, and its replay
// window counts bytes, of eight packets each.
func parseSetkey(text string) *found {
	r := setkeyReader{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if setkeyAdd.MatchString(lines[i]) || len(r.added) > 0 && setkeyGone.MatchString(lines[i]) {
			r.end()
			i = r.commands(lines, i)
			continue
		}
		line, number := lines[i], i+1
		for setkeyKey.MatchString(line) && i+1 < len(lines) && setkeyMore.MatchString(lines[i+1]) {
			i++
			line += " " + lines[i]
		}
		r.line(line, number, i == len(lines)-1)
	}
	r.end()
	slices.Reverse(r.listed)
	return &found{all: append(r.listed, r.added...)}
}

// setkeyReader is a text while it is read.
type setkeyReader struct {
	listed, added []parsed
	ends          []string // addresses and ports that no SA has yet, as setkeyEnds has them
	endsAt        int      // their line
	cur           *keyed
}

// line reads a line of setkey -D; last if nothing ends it.
func (r *setkeyReader) line(line string, number int, last bool) {
	if m := setkeyEnds.FindStringSubmatch(line); m != nil {
		r.end()
		r.ends, r.endsAt = m[1:], number
	} else if m := setkeySA.FindStringSubmatch(line); m != nil {
		ends := r.ends
		r.ends = nil
		r.end()
		spi, _ := strconv.ParseUint(m[3], 16, 32)
		r.cur = newKeyed(number, uint32(spi), m[1], m[2], ends)
		if ends == nil {
			r.cur.doubts = append(r.cur.doubts, noEnds)
		}
		reqid, _ := strconv.ParseUint(m[4], 10, 32) // 0 where there is none
		r.cur.ReqID = uint32(reqid)
	} else if m := setkeyKey.FindStringSubmatch(line); m != nil && r.cur != nil {
		r.cur.key(m[1] == "E", m[2], strings.Join(strings.Fields(m[3]), ""))
		r.cur.cut(last)
	} else if setkeyAlgo.MatchString(line) && r.cur != nil {
		r.cur.err = cmp.Or(r.cur.err, errors.New("expected an algorithm and its key in groups of hexadecimal digits"))
	} else if m := setkeyRest.FindStringSubmatch(line); m != nil && r.cur != nil {
		r.cur.rest(m)
	} else if setkeyUsed.MatchString(line) && r.cur != nil {
		r.cur.windowed = false
	}
}

func (r *setkeyReader) end() {
	if r.cur != nil {
		r.listed = append(r.listed, r.cur.finish())
	} else if r.ends != nil {
		r.listed = append(r.listed, parsed{SA: newSA(), line: r.endsAt, err: errors.New("the line behind its addresses, with mode and SPI, is missing")})
	}
	r.cur, r.ends = nil, nil
}

// keyed is an SA whose cipher and integrity algorithm are on separate lines.
type keyed struct {
	parsed
	cipher, integrity string // keywords
	larval            bool
	setkey            bool // its ICV of HMAC-SHA-256 may be Linux's
	windowed          bool // so may its window: Linux does not count who uses an SA
}

// newKeyed begins an SA in setkey's words. The ends are source, port, destination, port; without
// them it is to any address.
func newKeyed(line int, spi uint32, proto, mode string, ends []string) *keyed {
	k := &keyed{parsed: parsed{SA: newSA(), line: line}, setkey: true}
	k.SPI = spi
	k.err = k.Protocol.UnmarshalText([]byte(strings.TrimSuffix(proto, "-udp")))
	if mode == "any" {
		k.Mode = sa.Auto
	} else if err := k.Mode.UnmarshalText([]byte(mode)); err != nil && k.err == nil {
		k.err = err
	}
	if len(ends) == 4 {
		k.Src, k.Dst = address(ends[0]), address(ends[2])
	}
	if proto == "esp-udp" {
		var ports [2]uint16
		for i := range ports {
			ports[i] = sa.EncapPort
			if len(ends) == 4 && ends[1+2*i] != "" {
				port, _ := strconv.ParseUint(ends[1+2*i], 10, 16)
				ports[i] = uint16(port)
			}
		}
		k.err = cmp.Or(k.err, k.inUDP(ports[0], ports[1]))
	}
	return k
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
	case cipher && k.cipher != "", !cipher && k.integrity != "" && word != "null":
		k.err = errors.New("it has two algorithms of one kind; the lines between them may be missing")
	case err != nil:
		k.err = err
	case !known:
		k.err = unsupported(name, slices.Collect(maps.Keys(setkeyNames)))
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
	k.windowBytes(m[1])
	flags, _ := strconv.ParseUint(m[2], 16, 32)
	k.ESN = flags&flagESN != 0
	k.PadCheck = flags&flagPads == 0
	switch {
	case flags&flagsOld != 0:
		k.err = cmp.Or(k.err, errors.New("its packets are as RFC 1826 and 1827 had them (flags), which is not supported"))
	case flags&flagNATT != 0 && !k.Encap:
		k.err = cmp.Or(k.err, k.inUDP(sa.EncapPort, sa.EncapPort))
	}
	k.larval = m[3] == "larval"
	k.ended = m[3] == "dead"
}

// windowBytes takes over a window that is given in bytes of eight packets each.
func (k *keyed) windowBytes(text string) {
	bytes, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		k.err = cmp.Or(k.err, errors.New("expected a replay window in bytes"))
	}
	k.windowed = bytes > 0
	k.windowOf(bytes * 8)
}

// finish puts the SA together.
func (k *keyed) finish() parsed {
	if k.err == nil && (k.larval || k.cipher+k.integrity == "") {
		k.err = errNoKeys
	} else if k.err == nil && k.cipher == "" && k.Protocol == sa.ESP {
		k.err = errors.New("it has no cipher; if it encrypts nothing, say so: a line E: null, or the option -E null")
	}
	if k.setkey && k.integrity == "sha256" {
		k.doubts = append(k.doubts, "hmac-sha256 is taken for ICVs of 128 bits, as in IKE and on BSD; what setkey adds to Linux has 96 (suites with sha256_96)")
	}
	if k.windowed {
		k.doubts = append(k.doubts, "setkey's replay window is taken for bytes of eight packets each, as on BSD; on Linux it is packets")
	}
	if k.err == nil {
		k.Suite, k.err = sa.ParseSuite(k.Protocol, strings.Trim(k.cipher+"-"+k.integrity, "-"))
	}
	return k.parsed
}

// noEnds is left open of an SA whose addresses the text does not show.
const noEnds = "the text does not show between whom it is, and it is taken for one to any address"

var errNoKeys = errors.New("it has no keys; a larval state gets them when IKE is done")
