package keys

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Text is a file's text as UTF-8 without a byte order mark, whatever editor or shell wrote it:
// PowerShell's > makes everything UTF-16. UTF-8 stays as it is.
func Text(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return fromUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return fromUTF16(data[2:], binary.BigEndian)
	case len(data) > 1 && data[0] != 0 && data[1] == 0:
		return fromUTF16(data, binary.LittleEndian)
	case len(data) > 1 && data[0] == 0 && data[1] != 0:
		return fromUTF16(data, binary.BigEndian)
	}
	return data
}

func fromUTF16(data []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// quoteMark is what mail programs put before a quoted line.
var quoteMark = regexp.MustCompile(`(?m)^[ \t]*(?:>[ \t]?)+`)

// escape is a terminal's escape sequence: CSI as for a colour, OSC as for a title (ECMA-48).
var escape = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?)")

// plainText is a text with one kind of line end and of space, and without what a terminal and
// a mail program add.
func plainText(data []byte) string {
	text := string(Text(data))
	if strings.Contains(text, "\r") {
		text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	}
	if strings.ContainsFunc(text, unusualBlank) {
		text = strings.Map(func(c rune) rune {
			switch {
			case !unusualBlank(c):
				return c
			case unicode.IsSpace(c):
				return ' '
			}
			return -1
		}, text)
	}
	if strings.Contains(text, "\x1b") {
		text = escape.ReplaceAllString(text, "")
	}
	if isQuoted(text) {
		text = quoteMark.ReplaceAllString(text, "")
	}
	return text
}

// unusualBlank reports whether web pages and chat programs have a character in the place of a space,
// or where nothing is seen at all: zero-width ones and soft hyphens (categories Zs and Cf of Unicode).
func unusualBlank(c rune) bool {
	return c > unicode.MaxASCII && unicode.In(c, unicode.Zs, unicode.Cf)
}

// isQuoted reports whether any line begins with a quote mark.
func isQuoted(text string) bool {
	for i := range len(text) {
		if text[i] != '>' {
			continue
		}
		if before := strings.TrimRight(text[:i], " \t"); before == "" || strings.HasSuffix(before, "\n") {
			return true
		}
	}
	return false
}
