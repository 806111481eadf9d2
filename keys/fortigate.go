package keys

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"tapsec/sa"
)

// What FortiGate's `diagnose vpn tunnel list` says about SAs. A tunnel has a name and both ends,
// then an SA of each direction for every rekey.
var (
	fortiTunnel = regexp.MustCompile(`^\s*(?:name=|----)`)
	fortiEnds   = regexp.MustCompile(`\s([0-9a-fA-F.:]+):(\d+)->([0-9a-fA-F.:]+):(\d+)`)
	fortiNATT   = regexp.MustCompile(`\bnatt: mode=(\w+)`)
	fortiProxy  = regexp.MustCompile(`\bproxyid=(.*)`)
	fortiWindow = regexp.MustCompile(`\breplaywin=(\d+)`)
	fortiNumber = regexp.MustCompile(`\bseqno=([0-9a-f]+) esn=(\d) replaywin_lastseq=([0-9a-f]+)`)
	fortiCipher = regexp.MustCompile(`\b(dec|enc): spi=([0-9a-f]{8}) esp=(\S+) key=(\d+) ?([0-9a-f]*)`)
	fortiAuth   = regexp.MustCompile(`\bah=(\S+) key=(\d+) ?([0-9a-f]*)`)
)

// fortiNames maps FortiGate's and RouterOS's names to those of setkeyNames, where they differ.
var fortiNames = map[string]string{
	"none": "null", "des": "des-cbc", "3des": "3des-cbc", "aes": "aes-cbc", "aes-gcm": "aes-gcm-16", "chacha20poly1305": "chacha20-poly1305",
	"md5": "hmac-md5", "sha1": "hmac-sha1", "sha256": "hmac-sha256", "sha384": "hmac-sha384", "sha512": "hmac-sha512",
}

// forti is a text of FortiGate while it is read.
type forti struct {
	f             found
	local, remote netip.Addr
	encap         bool
	mode          sa.Mode
	window        uint64
	next, last    uint64 // the number to send next, the highest received
	numbered, esn bool
	cur           *keyed
	hasAuth       bool // cur has its line ah=
}

// parseFortiGate reads one direction of an SA after the other; dec is inbound. The only mode
// that the text names is transport-mode, on the line of the selectors.
func parseFortiGate(text string) *found {
	r := forti{mode: sa.Auto}
	for i, line := range strings.Split(text, "\n") {
		if fortiTunnel.MatchString(line) { // whose ends may be masked
			r.end()
			r = forti{f: r.f, mode: sa.Auto}
		}
		if m := fortiEnds.FindStringSubmatch(line); m != nil {
			r.local, r.remote, r.encap = address(m[1]), address(m[3]), m[2] == "4500" || m[4] == "4500"
		}
		if m := fortiNATT.FindStringSubmatch(line); m != nil {
			r.encap = r.encap || m[1] != "none"
		}
		if m := fortiProxy.FindStringSubmatch(line); m != nil {
			if r.mode = sa.Auto; strings.Contains(m[1], "transport-mode") {
				r.mode = sa.Transport
			}
		}
		if m := fortiWindow.FindStringSubmatch(line); m != nil {
			r.window, _ = strconv.ParseUint(m[1], 10, 32)
			r.numbered, r.esn = false, false
		}
		if m := fortiNumber.FindStringSubmatch(line); m != nil {
			r.next, _ = strconv.ParseUint(m[1], 16, 64)
			r.last, _ = strconv.ParseUint(m[3], 16, 64)
			r.numbered, r.esn = true, m[2] == "1"
		}
		if m := fortiCipher.FindStringSubmatch(line); m != nil {
			r.end()
			r.begin(m, i+1)
		}
		if m := fortiAuth.FindStringSubmatch(line); m != nil {
			switch {
			case r.cur == nil:
				r.cur = &keyed{parsed: parsed{SA: newSA(), line: i + 1, err: errors.New("the line before it, dec: or enc: with its SPI, is missing")}}
			case r.hasAuth:
				r.cur.err = cmp.Or(r.cur.err, errors.New("two lines ah= follow it; the one between them, dec: or enc: with its SPI, is missing"))
			}
			r.hasAuth = true
			r.key(false, m[1:])
		}
	}
	r.end()
	return &r.f
}

func (r *forti) begin(m []string, line int) {
	k := &keyed{parsed: parsed{SA: newSA(), line: line, numbered: r.numbered}}
	spi, _ := strconv.ParseUint(m[2], 16, 32)
	k.SPI, k.Protocol, k.Mode, k.ESN, k.Encap = uint32(spi), sa.ESP, r.mode, r.esn, r.encap
	k.Src, k.Dst = r.remote, r.local
	if m[1] == "enc" {
		k.Src, k.Dst = r.local, r.remote
	}
	if k.Encap {
		k.Src = netip.Addr{} // a NAT may change it
	}
	direction := sa.Outbound
	if m[1] == "dec" {
		direction, k.Seq = sa.Inbound, r.last
		if sa.ValidWindow(r.window) {
			k.Window = uint32(r.window)
		}
	} else {
		k.OSeq = max(r.next, 1) - 1
	}
	switch {
	case !k.Dst.IsValid():
		k.doubts = append(k.doubts, noEnds)
	case direction == sa.Inbound || k.Mode != sa.Auto: // an SA that seals has a mode
		k.Direction = direction
	}
	r.cur = k
	r.key(true, m[3:])
}

// key takes an algorithm with the number of bytes of its key, and the key.
func (r *forti) key(cipher bool, m []string) {
	if bytes, _ := strconv.Atoi(m[1]); len(m[2]) != 2*bytes {
		r.cur.err = cmp.Or(r.cur.err, fmt.Errorf("expected a key of %s bytes, found %d hexadecimal digits; "+
			"if its line was broken in two, make it one again", m[1], len(m[2])))
	}
	r.cur.key(cipher, cmp.Or(fortiNames[m[0]], m[0]), m[2])
}

func (r *forti) end() {
	if r.cur != nil {
		r.f.all = append(r.f.all, r.cur.finish())
	}
	r.cur, r.hasAuth = nil, false
}
