package keys

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestShortcuts: what is not searched for has nothing to be found, in the texts of
// people and in what edits make of them.
func TestShortcuts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	more, _ := filepath.Glob("../configs/*.yaml")
	tables, _ := filepath.Glob("testdata/*.esp_sa")
	var texts []string
	for _, file := range slices.Concat(files, tables, more) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, plainText(text[:min(len(text), 3000)]))
	}
	texts = append(texts, "ip\n x\f s a x", "  ip\tx state\tadd src", "carol : PSK \"x\"", "\n  > src 192.0.2.1", "> > x")
	pieces := []string{" ", "\n", "\t", "\f", ">", "ip", " x", "xf", " s", " a", "src ", " dst ", "#", "\"", "'", "\\", ":", "{", "[CHD]", "PSK"}
	rnd := rand.New(rand.NewPCG(17, 4))
	for range 10000 {
		text := texts[rnd.IntN(len(texts))]
		for range rnd.IntN(4) {
			i := rnd.IntN(len(text) + 1)
			text = text[:i] + pieces[rnd.IntN(len(pieces))] + text[min(len(text), i+rnd.IntN(3)):]
		}
		for _, s := range starts {
			if found := slices.ContainsFunc(strings.Split(text, "\n"), s.line.MatchString); found != s.in(text) {
				t.Fatalf("form %d is in a line: %t, by its words: %t: %q", s.form, found, !found, text)
			}
		}
		if isQuoted(text) != quoteMark.MatchString(text) {
			t.Fatalf("quoted %t: %q", isQuoted(text), text)
		}
		for line := range strings.Lines(text) {
			if !mayCommand(line) && slices.ContainsFunc(splitShell(line), func(words []string) bool { verb, _ := command(words); return verb != noVerb }) {
				t.Fatalf("a command: %q", line)
			}
		}
	}
}
