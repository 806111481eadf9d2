package keys

import (
	"fmt"
	"regexp"
)

// Texts that people mistake for SAs.
var (
	pskStart     = regexp.MustCompile(`(?m)^[^#\n{]*:\s+PSK\s+\S`)
	secretStart  = regexp.MustCompile(`(?m)^\s*secret\s*=\s*\S|^\s*ike-\w+\s*\{`)
	tcpdumpStart = regexp.MustCompile(`(?mi)^\s*(?:0x[0-9a-f]+|\d+)@\S+\s+[a-z0-9-]+:\S`)
	ikeTable     = regexp.MustCompile(`(?mi)^\s*"?[0-9a-f]{16}"?,"?[0-9a-f]{16}"?,`)
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
	case len(data) == 0:
		return "found nothing at all (ip xfrm state shows SAs to root alone)"
	}
	return fmt.Sprintf("found no SA in %d bytes", len(data))
}

// Names lists names for a message; of many only the first.
func Names(names []string) string {
	const most = 3
	text := ""
	for i, n := range names[:min(len(names), most)] {
		if i > 0 {
			text += ", "
		}
		text += n
	}
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
