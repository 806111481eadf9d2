// Package wrap fits text to a terminal, for people to read.
package wrap

import (
	"fmt"
	"strings"
	"unicode"
)

// Width is a terminal's, in columns.
const Width = 80

// Text breaks a text at spaces into lines that end within Width: the first one has room
// columns, the others are indented. A longer word stays whole.
func Text(text string, indent, room int) string {
	return string(Append(nil, []byte(text), indent, room))
}

// Fit is Text for a terminal that many columns wide.
func Fit(text string, indent, width int) string {
	return string(appendWithin(nil, []byte(text), indent, width, width))
}

// Append is Text for bytes: it appends to b, without other allocations.
func Append(b, text []byte, indent, room int) []byte {
	return appendWithin(b, text, indent, room, Width)
}

func appendWithin(b, text []byte, indent, room, width int) []byte {
	for {
		n := lineEnd(text, room)
		b = append(b, text[:n]...)
		if n == len(text) {
			return b
		}
		b = append(b, '\n')
		for range indent {
			b = append(b, ' ')
		}
		text, room = text[n+1:], width-indent
	}
}

// lineEnd is where to break: at the last space within room columns, or the first space of all;
// if the text fits, at its end.
func lineEnd(text []byte, room int) int {
	space, columns := -1, 0
	for i, c := range text {
		if c == ' ' && (columns <= room || space < 0) {
			space = i
		}
		if c&0xc0 != 0x80 { // not a continuation byte of UTF-8
			columns++
		}
		if columns > room && space >= 0 {
			return space
		}
	}
	return len(text)
}

// Shorten cuts a text to so many columns.
func Shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return text
}

// Count is a number of things: 1 frame, 2 frames.
func Count[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// Printable is a text of others as a terminal may have it: whatever is not printable, such as
// the beginning of an escape sequence, becomes a space.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// Message is a message to a person, who reads it on a terminal or in a log. It holds nothing that
// is not printable. On a terminal lines end within Width, but for those that begin with a
// space, which quote something; in a log each stays whole, for those that search it.
func Message(text string, terminal bool) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line = Printable(line); terminal && !strings.HasPrefix(line, " ") {
			line = Text(line, 2, Width)
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}
