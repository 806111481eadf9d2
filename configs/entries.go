package configs

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entries are the items of the list sas, each read by itself, since the tree of a whole file
// takes thirty times its size.
//
// A text is divided only where nothing else can be meant: sas stands at the beginning
// of a line, and its items below it, each after a dash at one depth. Where a line
// belongs to what another item began (a quote, an anchor), an item alone is no YAML,
// or not one item; then the text is read as a whole.
type entries struct {
	text   string
	list   *yaml.Node // in the tree of the rest, empty
	depth  int        // spaces before the dashes
	starts []int      // offsets of the items' first lines, and of what follows the last item
	lines  []int      // numbers of these lines, from 1
	line   int        // number of the list's own line
}

// divide finds the entries of a text. In the rest their lines are empty. e is nil for a text
// that cannot be divided.
func divide(text string) (e *entries, rest string) {
	at := listStart(text)
	switch head := text[:max(at, 0)]; {
	case at < 0, strings.HasPrefix(head, "%"), strings.Contains(head, "\n%"): // a directive
		return nil, ""
	case slices.ContainsFunc(lineEnds, func(end string) bool { return strings.Contains(text, end) }):
		return nil, ""
	}
	e = &entries{text: text, depth: -1, line: strings.Count(text[:at], "\n") + 1}
	from := nextLine(text, at)
	pos := from
	for line := e.line + 1; pos < len(text); line, pos = line+1, nextLine(text, pos) {
		switch depth, first := lineStart(text[pos:]); {
		case first == '\n', first == '#': // whosever it is
		case first == '\t', depth < e.depth:
			return nil, ""
		case depth == 0 && first != '-': // the next field
			return e.close(from, pos)
		case first != '-' && (e.depth < 0 || depth == e.depth):
			return nil, ""
		case e.depth < 0 || depth == e.depth:
			e.depth = depth
			e.starts, e.lines = append(e.starts, pos), append(e.lines, line)
		}
	}
	return e.close(from, pos)
}

// lineEnds are YAML's other ones, and what may begin a text.
var lineEnds = []string{"\r", "\u0085", "\u2028", "\u2029", "\ufeff"}

func (e *entries) close(from, to int) (*entries, string) {
	if e.len() == 0 {
		return nil, ""
	}
	e.starts = append(e.starts, to)
	return e, e.text[:from] + strings.Repeat("\n", strings.Count(e.text[from:to], "\n")) + e.text[to:]
}

// listStart is the offset of the line that begins the list; -1 if there is none.
func listStart(text string) int {
	const field = "sas:"
	at := 0
	if !strings.HasPrefix(text, field) {
		if at = strings.Index(text, "\n"+field) + 1; at == 0 {
			return -1
		}
	}
	if !blank(text[at+len(field) : nextLine(text, at)]) {
		return -1
	}
	return at
}

// blank reports whether the rest of a line is nothing, or a comment.
func blank(rest string) bool {
	words := strings.TrimLeft(rest, " ")
	return words == "" || words[0] == '\n' || words[0] == '#' && len(words) < len(rest)
}

func nextLine(text string, pos int) int {
	if end := strings.IndexByte(text[pos:], '\n'); end >= 0 {
		return pos + end + 1
	}
	return len(text)
}

// lineStart is the number of spaces that a line begins with, and the byte after
// them: '-' where it begins an item, '\n' at the end, 0 where it begins a word.
func lineStart(line string) (spaces int, first byte) {
	for spaces < len(line) && line[spaces] == ' ' {
		spaces++
	}
	rest := line[spaces:]
	switch {
	case rest == "":
		return spaces, '\n'
	case rest[0] == '\n', rest[0] == '#', rest[0] == '\t':
		return spaces, rest[0]
	case rest[0] != '-':
		return spaces, 0
	case len(rest) == 1 || rest[1] == ' ' || rest[1] == '\n':
		return spaces, '-'
	case rest[1] == '\t':
		return spaces, '\t'
	}
	return spaces, 0
}

// in puts the entries into the tree of the rest, and reports whether they belong there.
func (e *entries) in(root *yaml.Node) bool {
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		if name.Line == e.line && name.Column == 1 && name.Value == "sas" {
			e.list = value
			return value.Tag == "!!null" && value.Value == "" && value.Style == 0 && value.Anchor == ""
		}
	}
	return false
}

func (e *entries) len() int { return len(e.lines) }

// item is the tree of item i; nil if it cannot be read by itself. It may lie in room, and is
// valid until that is used again.
func (e *entries) item(i int, room *room) *yaml.Node {
	text, line := e.text[e.starts[i]:e.starts[i+1]], e.lines[i]
	if n := room.read(text, e.depth, line); n != nil {
		return n
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || doc.Kind != yaml.DocumentNode {
		return nil
	}
	list := doc.Content[0]
	if list.Kind != yaml.SequenceNode || len(list.Content) != 1 || list.Column != e.depth+1 || !alone(list, line-1) {
		return nil
	}
	return list.Content[0]
}

// alone reports whether a tree refers to nothing, and nothing can refer to it. It
// moves it down by some lines.
func alone(n *yaml.Node, lines int) bool {
	n.Line += lines
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return false
	}
	for _, child := range n.Content {
		if !alone(child, lines) {
			return false
		}
	}
	return true
}
