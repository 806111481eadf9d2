// Package vector reads the text files that test vectors stand in: blocks of
// "field: value" lines, with an empty line between two blocks. A line that
// begins with # is a comment. A field may come again in a block.
//
// It knows no field. The files say what their fields mean, and who made them.
package vector

import "strings"

// Block is one vector: a field's values in their order, without the space
// around them.
type Block map[string][]string

// Get returns a field's values, one on each line; "" if there is none.
func (b Block) Get(field string) string { return strings.Join(b[field], "\n") }

// Parse returns the blocks of a file's text that have any field.
func Parse(text string) []Block {
	var blocks []Block
	for part := range strings.SplitSeq(text, "\n\n") {
		b := Block{}
		for line := range strings.Lines(part) {
			if field, value, ok := strings.Cut(line, ":"); ok && line[0] != '#' {
				b[field] = append(b[field], strings.TrimSpace(value))
			}
		}
		if len(b) > 0 {
			blocks = append(blocks, b)
		}
	}
	return blocks
}
