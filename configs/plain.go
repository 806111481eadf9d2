package configs

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// room is memory for the tree of one item at a time.
type room struct {
	item   yaml.Node
	fields [2 * maxPlainFields]yaml.Node // names and values
	list   [2 * maxPlainFields]*yaml.Node
}

const maxPlainFields = 40

// read gives the tree of an item that is nothing but lines `name: value`, with values of one
// word or in plain quotes, as nearly all are. It takes a fifteenth of the time of a full YAML
// parser. nil means that the item is not that simple.
func (r *room) read(text string, depth, line int) *yaml.Node {
	n := 0
	column := depth + 1 // of the fields, from 0
	for column < len(text) && text[column] == ' ' {
		column++
	}
	for pos := 0; pos < len(text); line++ {
		end := nextLine(text, pos)
		spaces, first := column, byte(0)
		if pos > 0 {
			spaces, first = lineStart(text[pos:end])
		}
		if pos > 0 && (first == '\n' || first == '#' && simple(text[pos+spaces:end])) {
			pos = end
			continue
		}
		if spaces != column || first != 0 || n == len(r.fields) {
			return nil
		}
		name, value, at := plainField(text[pos+column : end])
		if at == 0 {
			return nil
		}
		r.fields[n] = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: line, Column: column + 1}
		r.fields[n+1] = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: line, Column: column + at + 1}
		if text[pos+column+at] != '"' {
			r.fields[n+1].Tag = plainTag(value)
		}
		r.list[n], r.list[n+1] = &r.fields[n], &r.fields[n+1]
		n += 2
		pos = end
	}
	r.item = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: r.list[:n], Line: r.fields[0].Line, Column: column + 1}
	return &r.item
}

// plainTag is the kind of a word without quotes, as far as the decoder asks for it.
func plainTag(word string) string {
	switch word {
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return "!!bool"
	case "null", "Null", "NULL":
		return "!!null"
	}
	return "!!str"
}

// plainField takes a line apart, after its spaces: `name: value`, where the value is one word
// or in double quotes, and perhaps a comment. at is the value's offset; 0 means that the line
// is something else.
func plainField(line string) (name, value string, at int) {
	end := span(line, nameByte)
	if end == 0 || end > 64 || !strings.HasPrefix(line[end:], ": ") {
		return "", "", 0
	}
	name, at = line[:end], end+1
	for at < len(line) && line[at] == ' ' {
		at++
	}
	rest := line[at:]
	if strings.HasPrefix(rest, `"`) {
		n := span(rest[1:], quotedByte)
		if value = rest[1 : 1+n]; !strings.HasPrefix(rest[1+n:], `"`) {
			return "", "", 0
		}
		rest = rest[n+2:]
	} else {
		n := span(rest, wordByte)
		if value = rest[:n]; n == 0 || strings.IndexByte("_.:+-", rest[0]) >= 0 || rest[n-1] == ':' {
			return "", "", 0
		}
		rest = rest[n:]
	}
	if !blank(rest) || !simple(rest) {
		return "", "", 0
	}
	return name, value, at
}

// simple reports whether a line's end is all ASCII, which YAML takes in a comment.
func simple(rest string) bool {
	return span(strings.TrimSuffix(rest, "\n"), asciiByte) == len(strings.TrimSuffix(rest, "\n"))
}

// The bytes of names, of words, and of quoted text without escapes.
const (
	nameByte = 1 << iota
	wordByte
	quotedByte
	asciiByte
)

var byteKinds = func() (kinds [256]uint8) {
	for c := ' '; c <= '~'; c++ {
		kinds[c] |= asciiByte
		if c != '"' && c != '\\' {
			kinds[c] |= quotedByte
		}
	}
	for _, c := range "abcdefghijklmnopqrstuvwxyz_" {
		kinds[c] |= nameByte | wordByte
	}
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./:+-" {
		kinds[c] |= wordByte
	}
	return kinds
}()

// span counts the bytes of a kind at the start of a text.
func span(text string, kind uint8) int {
	for i := range len(text) {
		if byteKinds[text[i]]&kind == 0 {
			return i
		}
	}
	return len(text)
}
