package keys

import (
	"cmp"
	"slices"
	"strings"
)

// command gives the words behind `xfrm state add`, without quotes; nil where a
// line is no such command.
func command(words []string) []string {
	for i := 0; i+2 < len(words) && !strings.HasPrefix(words[i], "#"); i++ {
		if words[i] == "xfrm" && words[i+1] == "state" && (words[i+2] == "add" || words[i+2] == "update") {
			rest := []string{}
			for _, w := range words[i+3:] {
				rest = append(rest, strings.Trim(w, `'"`))
			}
			return rest
		}
	}
	return nil
}

// clauses begin with these words; those of the last line mean nothing here.
var clauses = []string{"src", "proto", "spi", "mode", "aead", "enc", "auth", "auth-trunc", "encap", "sel",
	"replay-window", "replay-seq", "replay-seq-hi", "replay-oseq", "replay-oseq-hi", "flag",
	"comp", "reqid", "seq", "mark", "limit", "coa", "ctx", "extra-flag", "output-mark", "if_id", "offload", "tfcpad", "dir"}

// inner are words that belong to some clauses, too.
var inner = map[string][]string{"sel": {"src", "proto"}, "offload": {"dir"}}

// command reads the words of a command clause by clause, each as a line of the
// listing.
func (s *state) command(words []string) {
	var header []string
	var err error
	for len(words) > 0 {
		end := min(2, len(words)) // what follows the first word is its own
		for end < len(words) && (!slices.Contains(clauses, words[end]) || slices.Contains(inner[words[0]], words[end])) {
			end++
		}
		clause := words[:end]
		words = words[end:]
		switch clause[0] {
		case "proto", "spi", "mode":
			header = append(header, clause...)
		default:
			err = cmp.Or(err, s.clause(clause))
		}
	}
	s.err = cmp.Or(s.header(append(header, "mode", "transport")), err) // the mode that ip takes where none is said
	s.skip = true                                                      // no line below is its
}

// clause reads those that look otherwise in the listing.
func (s *state) clause(words []string) error {
	switch words[0] {
	case "encap":
		if len(words) > 3 {
			words = []string{"encap", "type", words[1], "sport", words[2], "dport", words[3]}
		}
	case "flag":
		s.ESN = s.ESN || slices.Contains(words, "esn")
	case "replay-seq", "replay-seq-hi":
		s.Seq |= number(words, "replay-seq-hi")<<32 | number(words, "replay-seq")
	case "replay-oseq", "replay-oseq-hi":
		s.OSeq |= number(words, "replay-oseq-hi")<<32 | number(words, "replay-oseq")
	}
	return s.read(words)
}
