package wrap_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"tapsec/internal/wrap"
)

// Broken lines fit, none could have taken the next word, and nothing is lost.
func TestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-zü]{1,90}`), 1, 30).Draw(t, "words")
		indent, room := rapid.IntRange(0, 20).Draw(t, "indent"), rapid.IntRange(10, wrap.Width).Draw(t, "room")
		text := strings.Join(words, " ")
		lines := strings.Split(wrap.Text(text, indent, room), "\n")
		for i, line := range lines {
			if i > 0 {
				var ok bool
				if line, ok = strings.CutPrefix(line, strings.Repeat(" ", indent)); !ok {
					t.Fatalf("line %d is not indented: %q", i, line)
				}
				room = wrap.Width - indent
			}
			lines[i] = line
			n := utf8.RuneCountInString(line)
			if n > room && strings.Contains(line, " ") {
				t.Fatalf("%d columns instead of %d: %q", n, room, line)
			}
			if i+1 < len(lines) {
				next, _, _ := strings.Cut(strings.TrimLeft(lines[i+1], " "), " ")
				if n+1+utf8.RuneCountInString(next) <= room {
					t.Fatalf("%q has room for %q", line, next)
				}
			}
		}
		if got := strings.Join(lines, " "); got != text {
			t.Fatalf("%q, want %q", got, text)
		}
	})
}

// A message is whole in a log and broken for a terminal, whose cursor it never moves; what it
// quotes stays as it is.
func TestMessage(t *testing.T) {
	long := strings.Repeat("word ", 30) + "end"
	text := "a\x1b]0;title\ab " + long + "\n    " + long + "\nb\rc\td\xff"
	log := "a ]0;title b " + long + "\n    " + long + "\nb c d\ufffd"
	if got := wrap.Message(text, false); got != log {
		t.Errorf("in a log %q, expected %q", got, log)
	}
	got := wrap.Message(text, true)
	if strings.ReplaceAll(got, "\n  word", " word") != log && !strings.HasPrefix(got, "a ]0;title b word") {
		t.Errorf("on a terminal %q", got)
	}
	for line := range strings.Lines(got) {
		if len(line) > wrap.Width+1 && !strings.HasPrefix(line, "    ") {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}
