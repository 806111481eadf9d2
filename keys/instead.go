package keys

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
)

// Texts that people mistake for SAs.
var (
	pskStart     = regexp.MustCompile(`(?m)^[^#\n{]*:\s+PSK\s+\S`)
	secretStart  = regexp.MustCompile(`(?m)^\s*secret\s*=\s*\S|^\s*ike-\w+\s*\{`)
	tcpdumpStart = regexp.MustCompile(`(?mi)^\s*(?:0x[0-9a-f]+|\d+)@\S+\s+[a-z0-9-]+:\S`)
	uatOption    = regexp.MustCompile(`uat:esp_sa:`)
	tlsLog       = regexp.MustCompile(`(?m)^(?:CLIENT|SERVER|EARLY|EXPORTER)_[A-Z_0-9]+ [0-9a-fA-F]{64} [0-9a-fA-F]+`)
	manualKey    = regexp.MustCompile(`(?i)\b(?:auth|enc|encr|crypto|cipher|aead|session|esp|ah)[_-]?key\b`)
	ikeTable     = regexp.MustCompile(`(?mi)^\s*"?[0-9a-f]{16}"?,"?[0-9a-f]{16}"?,`)
)

// keyless are outputs that tell of SAs and show no keys, by how they look somewhere near the
// beginning. Many also look like a configuration.
var keyless = []struct {
	of   string
	line *regexp.Regexp
}{
	{"swanctl --list-sas", regexp.MustCompile(`(?m)^\s*\S+: #\d+, (?:[A-Z]+, )?(?:reqid|IKEv|[A-Z]{6})|^\s*list-sa event \{`)},
	{"ipsec statusall", regexp.MustCompile(`(?m)^Security Associations \(\d+ up|\bSPIs: [0-9a-f]{8}_i`)},
	{"ipsec whack or Libreswan's log", regexp.MustCompile(`(?m)^\d{3} (?:#\d+: )?"[^"\n]+"|\bpluto\[\d+\]: `)},
	{"show crypto ipsec sa", regexp.MustCompile(`(?m)^\s*(?:in|out)bound (?:esp|ah) sas:|#pkts encaps:`)},
	{"show security ipsec security-associations", regexp.MustCompile(`(?m)^\s*Direction: (?:in|out)bound, SPI: |^\s*Total active tunnels:`)},
	{"installed-sa print of RouterOS", regexp.MustCompile(`\bSRC-ADDRESS +DST-ADDRESS\b`)},
	{"ipsecctl -s sa", regexp.MustCompile(`(?m)^\s*(?:@\d+ )?(?:esp|ah) (?:tunnel|transport) from \S+ to \S+ spi 0x|^sadb_\w+: satype `)},
	{"show ipsec sa of VPP", regexp.MustCompile(`(?m)^\s*\[\d+\] sa \d+ \(0x[0-9a-f]+\) spi \d+`)},
	{"netsh advfirewall monitor show qmsa", regexp.MustCompile(`(?m)^\s*(?:Quick|Main) Mode SA at `)},
}

// withoutKeys says whose output a text is that shows no keys; "" if none is known.
func withoutKeys(text string) string {
	const beginning = 64 << 10
	for _, k := range keyless {
		if k.line.MatchString(text[:min(len(text), beginning)]) {
			return k.of
		}
	}
	return ""
}

// What stands before the lines of a text that would be read without it; and charon's lines as its
// service writes them to the systemd journal, without the worker and the group.
var (
	prefixedState = regexp.MustCompile(`(?m)^.*\S.*\bsrc \S+ dst \S+\s*$`)
	prefixedProto = regexp.MustCompile(`(?m)^.*\S.*\bproto \w+ spi 0x`)
	journal       = regexp.MustCompile(`(?m)\bcharon-systemd\[\d+\]: `)
)

// instead says of a text without SAs what it is and what to give instead.
func instead(form Format, data []byte) string {
	text := plainText(data)
	switch {
	case form == YAML:
		return "found a configuration, which package configs reads"
	case pskStart.MatchString(text), secretStart.MatchString(text):
		return "found a secret of IKE: it authenticates a key exchange, and nobody can compute the keys of its SAs from it and a capture. " +
			"Give the SAs of either end: ip xfrm state as root, or charon's log with chd = 4"
	case tcpdumpStart.MatchString(text):
		return "found a file for tcpdump -E: it holds no integrity keys, so that nothing could be checked. Give the output of ip xfrm state"
	case ikeTable.MatchString(text):
		return "found Wireshark's table ikev2_decryption_table: it opens IKE, not ESP. Give the table esp_sa"
	case uatOption.MatchString(text):
		return "found an option of tshark. Give what stands behind uat:esp_sa: as a line of its own, with plain quotes"
	case tlsLog.MatchString(text):
		return "found the secrets of TLS: they open no ESP. Give ip xfrm state as root, or charon's log with chd = 4"
	case withoutKeys(text) != "":
		return fmt.Sprintf("found what %s prints, in a form without keys, or with keys that tapsec does not read. "+
			"Those of either end do: ip xfrm state as root, setkey -D, or charon's log with chd = 4", withoutKeys(text))
	case prefixedState.MatchString(text) && prefixedProto.MatchString(text):
		return "found lines of ip xfrm state with something before each. Cut that off; cut -c N- does it"
	case journal.MatchString(text):
		return "found charon's lines in the systemd journal, which leaves out worker and group. Give what a filelog of strongswan.conf writes, with chd = 4"
	case manualKey.MatchString(text):
		return "found keys of SAs in a notation that tapsec does not read. Give ip xfrm state as root, setkey -D, or entries of tapsec's own configuration"
	case IsCapture(data):
		return "found a capture. It comes behind the flags, and -k has a text with keys"
	case len(data) == 0:
		return "found nothing at all (ip xfrm state shows SAs to root alone)"
	}
	return fmt.Sprintf("found no SA in %d bytes", len(data))
}

// IsCapture reports whether data is a pcap or pcapng file, or a compressed one.
func IsCapture(data []byte) bool {
	magics := []string{"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d", "\n\r\r\n", "\x1f\x8b", "\x28\xb5\x2f\xfd"}
	return slices.ContainsFunc(magics, func(magic string) bool { return bytes.HasPrefix(data, []byte(magic)) })
}
