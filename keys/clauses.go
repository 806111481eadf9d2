package keys

import (
	"cmp"
	"slices"
)

// clauses are the first words of clauses; those of the last line are ignored.
var clauses = []string{"src", "dst", "proto", "spi", "reqid", "mode", "aead", "enc", "auth", "auth-trunc", "encap", "sel",
	"replay-window", "replay-seq", "replay-seq-hi", "replay-oseq", "replay-oseq-hi", "flag",
	"comp", "seq", "mark", "limit", "coa", "ctx", "extra-flag", "output-mark", "if_id", "offload", "tfcpad", "dir", "pcpu-num"}

// inner are words that also occur inside some clauses.
var inner = map[string][]string{"sel": {"src", "dst", "proto"}, "offload": {"dir"}}

// arguments reads the words of a command clause by clause, each like a line of the listing.
func (s *state) arguments(words []string) {
	var header, ends []string
	var rest [][]string
	for len(words) > 0 {
		end := min(2, len(words)) // what follows the first word is its own
		for end < len(words) && (!slices.Contains(clauses, words[end]) || slices.Contains(inner[words[0]], words[end])) {
			end++
		}
		clause := words[:end]
		words = words[end:]
		switch clause[0] {
		case "proto", "spi", "reqid", "mode":
			header = append(header, clause...)
		case "src", "dst":
			ends = append(ends, clause...)
		default:
			rest = append(rest, clause)
		}
	}
	// Without a mode, ip takes transport.
	s.err = cmp.Or(s.header(append(header, "mode", "transport")), s.addresses(ends))
	for _, clause := range rest {
		s.err = cmp.Or(s.err, s.clause(clause))
	}
}

// clause reads clauses that look different in the listing.
func (s *state) clause(words []string) error {
	switch words[0] {
	case "encap":
		if len(words) > 3 {
			words = []string{"encap", "type", words[1], "sport", words[2], "dport", words[3]}
		}
	case "replay-seq", "replay-seq-hi":
		s.Seq |= number(words, "replay-seq-hi")<<32 | number(words, "replay-seq")
		return nil
	case "replay-oseq", "replay-oseq-hi":
		s.OSeq |= number(words, "replay-oseq-hi")<<32 | number(words, "replay-oseq")
		return nil
	}
	return s.read(words)
}
