package configs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/keys"
)

// withKeys are texts in every form that holds SAs, with K and I where keys belong:
// 20 bytes as one number, and 20 bytes in groups of eight digits.
var withKeys = []string{
	"profile: full\nsas:\n  - name: one\n    spi: 0xc001\n    src: 192.0.2.1\n    dst: 192.0.2.2\n    protocol: esp\n    mode: tunnel\n    suite: aes128gcm16\n" +
		"    encryption_key: 0xK\n    selector: {dst: 10.0.0.0/8, protocol: tcp, ports: 443}\n    lifetimes: {hard: {time: 8h}}\n    encap: {port: 4500}\n" +
		"  - {name: two, spi: 9, dst: '2001:db8::1', protocol: ah, mode: tunnel, suite: sha1, integrity_key: \"0xI\", replay_off: true, seq: 9, bitmap: 0x3}\n" +
		"allow_legacy: true\nlocal: [192.0.2.2]\npolicy:\n  - {match: {dst: 192.0.2.2}, action: protect, sa: one}\nwire: {name: wire0, mtu: 1500}\nqueues: 1\n",
	`{"sas": [{"name": "j", "spi": "0x1234", "protocol": "esp", "mode": "tunnel", "dst": "::1", "suite": "null-sha1", "integrity_key": "I", "bundle": "x"}], "allow_legacy": true}`,
	"src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc001 reqid 1 mode tunnel\n\treplay-window 0 flag af-unspec esn\n\taead rfc4106(gcm(aes)) 0xK 128\n" +
		"\tencap type espinudp sport 4500 dport 4500 addr 0.0.0.0\n\tanti-replay esn context:\n\t seq-hi 0x0, seq 0xa\n\t replay_window 128, bitmap-length 1\n\t 000003ff\n" +
		"\tsel src 10.0.0.0/8 dst 10.1.0.0/16 proto tcp dport 443 dev eth0\n\tdir in\nsrc 192.0.2.2 dst 192.0.2.1\n\tproto ah spi 0xc002 reqid 1 mode transport\n\tauth-trunc hmac(sha1) 0xI 96\n",
	"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0xc001 mode tunnel aead 'rfc4106(gcm(aes))' 0xK 128 encap espinudp 4500 4500 0.0.0.0 && ip x s a src ::1 dst ::2 proto ah spi 7 auth hmac(sha1) 0xI sel proto gre\n",
	`"IPv4","192.0.2.1","192.0.2.2","0xc001","AES-GCM with 16 octet ICV [RFC4106]","0xK","NULL","","64-bit","00000001"` + "\n" + `"IPv4","*","*","0x7","NULL","","HMAC-SHA-1-96 [RFC2404]","0xI"` + "\n",
	"192.0.2.1 192.0.2.2\n\tesp mode=transport spi=49153(0x0000c001) reqid=0(0x00000000)\n\tE: null\n\tA: hmac-sha1  G\n\tseq=0x00000000 replay=4 flags=0x00000000 state=mature\n",
	"proxyid=X proto=0 sa=1\n  SA:  ref=3 replaywin=2048\n  seqno=3 esn=0\n  dec: spi=0000c001 esp=aes-gcm key=20 K\n       ah=null key=0\n  enc: spi=0000c002 esp=null key=0\n       ah=sha1 key=20 I\n",
	"05[ENC] parsed CREATE_CHILD_SA response 2 [ SA No ]\n05[CHD]   using HMAC_SHA1_96 for integrity\n05[CHD] integrity initiator key => 20 bytes @ 0x7f\n" +
		"05[CHD]    0: D\n05[CHD] adding inbound ESP SA\n05[CHD]   SPI 0x0000c001, src 192.0.2.2 dst 192.0.2.1\n",
}

// kept is what messages may say although it has eight digits: SPIs, the names made
// of them, and addresses.
var (
	kept   = regexp.MustCompile(`0x[0-9a-f]{8}\b|\b(?:esp|ah|sa)-[0-9a-f]{8}\b`)
	colons = regexp.MustCompile(`[0-9a-f.:]*:[0-9a-f.:]*`)
)

// No message shows eight hexadecimal digits of a key in a row, wherever an edit has
// moved it: not the error, not as JSON, not a warning.
func TestNoMessageShowsAKey(t *testing.T) {
	const rounds = 20000
	rnd := rand.New(rand.NewPCG(11, 5))
	hex := func(digits int) string {
		var b strings.Builder
		for range digits {
			b.WriteByte("0123456789abcdef"[rnd.IntN(16)])
		}
		return b.String()
	}
	for round := range rounds {
		k, i := hex(40), hex(40)
		groups := func(n int, of string) string {
			var parts []string
			for part := range slices.Chunk([]byte(of), n) {
				parts = append(parts, string(part))
			}
			return strings.Join(parts, " ")
		}
		text := strings.NewReplacer("0xK", "0x"+k, " K\n", " "+k+"\n", "0xI", "0x"+i, " I\n", " "+i+"\n", `"I"`, `"`+i+`"`,
			" G\n", " "+groups(8, i)+"\n", " D\n", " "+strings.ToUpper(groups(2, i))+"  ....\n").Replace(withKeys[round%len(withKeys)])
		for range 1 + rnd.IntN(3) {
			text = mutate(rnd, text, []string{k, i})
		}
		said := strings.ToLower(messages(text))
		for _, secret := range []string{k, i} {
			if piece := shows(said, secret); piece != "" {
				t.Fatalf("round %d: %s of the key %s is shown:\n%s\nin what is said of\n%s", round, piece, secret, said, text)
			}
		}
	}
}

// mutate edits a text as tired hands do.
func mutate(rnd *rand.Rand, text string, secrets []string) string {
	at := func() int { return rnd.IntN(len(text) + 1) }
	switch rnd.IntN(6) {
	case 0, 1: // a key, or a piece of it, lands elsewhere
		piece := secrets[rnd.IntN(len(secrets))]
		from := rnd.IntN(len(piece) - 8)
		piece = piece[from : from+8+rnd.IntN(len(piece)-from-7)]
		i := at()
		return text[:i] + piece + text[i:]
	case 2: // something is gone, so that what stood apart stands together
		i := at()
		return text[:i] + text[min(len(text), i+1+rnd.IntN(30)):]
	case 3:
		marks := ":{}[]\"',#\n\t &*!|>%@0x-/_"
		i, m := at(), rnd.IntN(len(marks))
		return text[:i] + marks[m:m+1] + text[i:]
	}
	lines := strings.SplitAfter(text, "\n")
	i, j := rnd.IntN(len(lines)), rnd.IntN(len(lines))
	if rnd.IntN(2) == 0 {
		lines[i], lines[j] = lines[j], lines[i]
	} else {
		lines = slices.Insert(lines, i, lines[j])
	}
	return strings.Join(lines, "")
}

// messages is all that is said of a text.
func messages(text string) string {
	c, err := ParseKeys("f", []byte(text))
	if errors.Is(err, keys.ErrFormat) {
		_, e := Parse("f", []byte(text))
		return fmt.Sprint(err, e)
	}
	if err != nil {
		asJSON, _ := json.Marshal(err)
		return err.Error() + "\n" + string(asJSON)
	}
	return fmt.Sprint(c.Warnings)
}

var ungrouped = strings.NewReplacer(" ", "", ":", "", "_", "", "-", "")

// shows is the piece of a key that a text holds, in whatever groups.
func shows(said, secret string) string {
	said = kept.ReplaceAllStringFunc(said, func(word string) string { return strings.Repeat("~", len(word)) })
	said = colons.ReplaceAllStringFunc(said, func(word string) string {
		if _, err := netip.ParseAddr(word); err == nil {
			return "~"
		}
		return word
	})
	together := ungrouped.Replace(said)
	for i := range len(secret) - 7 {
		if strings.Contains(together, secret[i:i+8]) {
			return secret[i : i+8]
		}
	}
	return ""
}
