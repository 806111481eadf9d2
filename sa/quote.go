package sa

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// hexRun is hexadecimal digits, in one piece or in groups, as keys are printed.
var hexRun = regexp.MustCompile(`(?i)[0-9a-f]+(?:[ \t:_-][0-9a-f]+)*`)

// secretDigits in a row may be a piece of a key.
const secretDigits = 8

// mayBeKey reports whether a hexRun is long enough for a piece of a key.
func mayBeKey(run string) bool {
	digits := 0
	for _, c := range run {
		if !strings.ContainsRune(" \t:_-", c) {
			digits++
		}
	}
	return digits >= secretDigits
}

// Quote quotes text in a message that says what was found instead of what was expected. It
// hides a text that may hold a piece of a key: eight hexadecimal digits in a row, whatever
// separates them.
func Quote(text string) string {
	for _, run := range hexRun.FindAllString(text, -1) {
		if mayBeKey(run) {
			return fmt.Sprintf("<%d characters, not shown>", utf8.RuneCountInString(text))
		}
	}
	return strconv.Quote(text)
}

// plain is what RedactLine shows in spite of eight digits in a row: SPIs after their name,
// and words that may be addresses or prefixes.
var plain = regexp.MustCompile(`(?i)\bspi["']?\s*[:=]?\s*["']?0x[0-9a-f]{1,8}\b|[0-9a-f.:]*:[0-9a-f.:]*(?:/\d+)?`)

// RedactLine masks whatever may be a piece of a key in a line of somebody's file, but not
// SPIs and addresses.
func RedactLine(line string) string {
	var shown []string
	const hole = '\uf8ff' // private use area: not in any file
	line = strings.ReplaceAll(line, string(hole), "?")
	line = plain.ReplaceAllStringFunc(line, func(word string) string {
		if !strings.HasPrefix(strings.ToLower(word), "spi") && !isAddress(word) {
			return word
		}
		shown = append(shown, word)
		return string(hole)
	})
	line = hexRun.ReplaceAllStringFunc(line, func(run string) string {
		if !mayBeKey(run) {
			return run
		}
		return fmt.Sprintf("<%d digits>", len(run))
	})
	for _, word := range shown {
		line = strings.Replace(line, string(hole), word, 1)
	}
	return line
}

func isAddress(word string) bool {
	_, err := netip.ParseAddr(word)
	_, errPrefix := netip.ParsePrefix(word)
	return err == nil || errPrefix == nil
}
