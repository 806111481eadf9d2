package configs

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tapsec/internal/wrap"
	"tapsec/keys"
	"tapsec/sa"
)

// Problem is a mistake, or a warning, at one place of a file. None of its
// fields holds a key.
type Problem struct {
	File  string `json:"file"`
	Line  int    `json:"line"`            // from 1; 0 if a message concerns no line
	Col   int    `json:"col"`             // from 1
	Field string `json:"field,omitempty"` // path, for instance sas[0].spi
	Text  string `json:"text,omitempty"`  // the line itself, key values masked
	Msg   string `json:"msg"`             // what was expected, what was found, what to do
}

// String gives place, field and message on one line, the quoted line beneath.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Msg)
	if p.Text != "" {
		b.WriteString("\n    " + p.Text)
	}
	return b.String()
}

// Errors is every mistake of a configuration, sorted by place.
type Errors []Problem

// Error prints all of them.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func sortProblems(p []Problem) {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

var (
	// keyField is the name of a field that holds a key.
	keyField = regexp.MustCompile(`(?i)(key|secret|psk|passw)`)
	// keyValue is such a field with its value: to the end of the line, or after a brace
	// to the next comma or brace.
	keyValue     = regexp.MustCompile(`(?i)([\w-]*(?:key|secret|psk|passw)[\w-]*["']?\s*[:=]\s*)(.+)`)
	flowKeyValue = regexp.MustCompile(`(?i)([\w-]*(?:key|secret|psk|passw)[\w-]*["']?\s*[:=]\s*)([^,}\s][^,}]*)`)
	fieldStart   = regexp.MustCompile(`^[\s{-]*["']?\w+["']?\s*:`)
	// fromText is what the YAML parser's messages quote of the text.
	fromText = regexp.MustCompile("(?s)(anchor )'.*'|`.*`")
)

// hidden reports whether a word has so many hexadecimal digits that redact masks all of it.
func hidden(word string) bool {
	digits := strings.TrimPrefix(word, "0x")
	return len(digits) >= 16 && strings.Trim(digits, "0123456789abcdefABCDEF") == ""
}

// generated is a name that package keys made of an SPI.
var generated = regexp.MustCompile(`^(?:esp|ah)-[0-9a-f]{8}(?:-[0-9a-f.:]+)*$`)

// label is an SA's name in a message, in quotes.
func label(name string) string {
	if shown(name) == name {
		return strconv.Quote(name)
	}
	return shown(name)
}

// shown is a name in a message, unless it may hold a piece of a key.
func shown(name string) string {
	if quoted := sa.Quote(name); quoted[0] != '"' && !generated.MatchString(name) {
		return quoted
	}
	return name
}

// isKeyField reports whether the field of that name holds a key.
func isKeyField(name string) bool { return keyField.MatchString(name) && name != "insecure_key_files" }

// redact makes text fit for messages: it masks anything that looks like a key, removes
// whatever could move a terminal's cursor, and shortens what is too long.
func redact(text string) string {
	text = wrap.Printable(keys.Redact(text))
	if runes := []rune(text); len(runes) > 240 {
		text = string(runes[:240]) + " ..."
	}
	return text
}

// masker replaces secrets by their masks, in one pass over a text. Of two that begin alike the
// longer one counts.
func masker(secrets []string) *strings.Replacer {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var pairs []string
	for _, s := range slices.Compact(secrets) {
		pairs = append(pairs, s, keys.Mask(s))
	}
	return strings.NewReplacer(pairs...)
}

// maxLine is how much of a line is looked at to quote it, in bytes. It is far more than is quoted.
const maxLine = 4096

// redactLine is redact for a line of the file, where fields' names show which values are keys.
func redactLine(line string, secrets *strings.Replacer) string {
	if len(line) > maxLine { // at a space, so that no piece of a key is left
		line = line[:strings.LastIndexAny(line[:maxLine], " \t")+1] + "..."
	}
	fields := keyValue
	if strings.Contains(line, "{") {
		fields = flowKeyValue
	}
	line = fields.ReplaceAllStringFunc(line, func(m string) string {
		parts := fields.FindStringSubmatch(m)
		value := strings.Trim(parts[2], `"'`)
		if strings.Contains(parts[1], "key_files") || strings.HasPrefix(value, "file:") {
			return m
		}
		return parts[1] + keys.Mask(value)
	})
	return sa.RedactLine(redact(strings.TrimSpace(secrets.Replace(line))))
}
