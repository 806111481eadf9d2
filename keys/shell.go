package keys

import (
	"path"
	"slices"
	"strings"
)

// splitShell splits a line of a script into simple commands and these into words, without
// quotes, comments and redirections. It expands nothing. Parentheses belong to the names of
// algorithms, which ip -batch takes without quotes.
func splitShell(line string) [][]string {
	s := shell{}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case s.quote != 0:
			if c == s.quote {
				s.quote = 0
			} else if c == '\\' && s.quote == '"' && i+1 < len(line) {
				i++
				s.word = append(s.word, line[i])
			} else {
				s.word = append(s.word, c)
			}
		case c == '\'' || c == '"':
			s.quote, s.inWord = c, true
		case c == '\\' && i+1 < len(line):
			i++
			s.word, s.inWord = append(s.word, line[i]), true
		case c == ' ' || c == '\t':
			s.endWord()
		case c == '#' && !s.inWord:
			return s.endCommand()
		case c == '<' || c == '>':
			if isNumber(s.word) { // 2>/dev/null
				s.word, s.inWord = nil, false
			}
			s.endCommand()
		case strings.IndexByte(";&|\n", c) >= 0:
			s.endCommand()
		default:
			s.word, s.inWord = append(s.word, c), true
		}
	}
	return s.endCommand()
}

// shell is a line while it is split.
type shell struct {
	commands [][]string
	words    []string
	word     []byte
	inWord   bool // word counts even if empty
	quote    byte // 0 outside of quotes
}

func (s *shell) endWord() {
	if s.inWord {
		s.words = append(s.words, string(s.word))
	}
	s.word, s.inWord = nil, false
}

func (s *shell) endCommand() [][]string {
	if s.endWord(); len(s.words) > 0 {
		s.commands = append(s.commands, s.words)
	}
	s.words = nil
	return s.commands
}

func isNumber(word []byte) bool {
	return len(word) > 0 && !slices.ContainsFunc(word, func(c byte) bool { return c < '0' || c > '9' })
}

// verb is what a command does to SAs.
type verb int

// The verbs.
const (
	addVerb    verb = iota // or update
	deleteVerb             // one SA
	flushVerb              // all
	noVerb                 // nothing
)

// verbs are those of ip and of setkey. Of several that begin alike ip takes the first.
var verbs = []struct {
	name string
	verb verb
}{{"add", addVerb}, {"update", addVerb}, {"delete", deleteVerb}, {"deleteall", flushVerb}, {"flush", flushVerb}}

// command gives the words after `ip xfrm state add` or another verb, which may be shortened as ip
// allows and follow a sudo or a namespace, or for ip -batch come without ip; noVerb for another
// command.
func command(words []string) (verb, []string) {
	for i := 0; i+2 < len(words); i++ {
		full := i == 0 && words[i] == "xfrm"
		if !full && !(strings.HasPrefix("xfrm", words[i]) && slices.ContainsFunc(words[:i], isIP)) {
			continue
		}
		object, does := words[i+1], words[i+2]
		if object == "" || does == "" || !strings.HasPrefix("state", object) && object != "sa" {
			continue
		}
		for _, v := range verbs {
			if strings.HasPrefix(v.name, does) {
				return v.verb, append([]string{}, words[i+3:]...)
			}
		}
	}
	return noVerb, nil
}

func isIP(word string) bool { return path.Base(word) == "ip" }
