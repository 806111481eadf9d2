package inspect

import (
	"strings"
	"unicode/utf8"
)

// Wrap breaks a text at spaces into lines that end within Width, the first one with
// room columns, the others indented. A word that is longer stays whole.
func Wrap(text string, indent, room int) string {
	var b strings.Builder
	used := 0
	for word := range strings.SplitSeq(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case used == 0:
		case used+1+n <= room:
			b.WriteByte(' ')
			used++
		default:
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(" ", indent))
			used, room = 0, Width-indent
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}
