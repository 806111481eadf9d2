package configs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tapsec/keys"
)

// texts are configurations whose items can be read one by one, and whose lines tired
// hands may move.
func texts(t testing.TB) (all []string) {
	samples, _ := filepath.Glob("*.yaml")
	for _, name := range samples {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	for _, m := range mistakes {
		all = append(all, m.text)
	}
	return append(all, withKeys[0], good+ah, strings.ReplaceAll(good+ah, "  ", " "),
		"profile: full\n"+strings.ReplaceAll(good, "\n  ", "\n")+"# what follows\npolicy:\n- {action: bypass}\n",
		good+"  -\n    spi: 7 # seven\n\n    name: \"a b\"\n# between\n  - {spi: 8, dst: '::1'}\n",
		"%TAG ! tag:x,2026:\n---\n"+good, "a: &a {x: 1}\n"+good+"    selector: *a\nlocal: []\n",
		good+"    bundle: \"x\n  - y: 1\"\nqueues: 1\n", good+"    bundle: |\n     x\n\n  - name: >+\n     y\n\n\nqueues: 1\n",
		"wire: &a {name: w}\nsas:\n  - &a {name: v}\nhost: *a\n", "x: \"\nsas:\n  - name: y\n\"\n", good+"    &x bundle: !!str null\n    esn: True\n    pad_check: null\n    dst: ~\n")
}

// pieces are what an edit puts in.
var pieces = []string{"\n", "\n  ", "\n  - ", "\n- ", "\nsas:\n", "\npolicy: []\n", "#", " # x", ": ", "- ", "\"", "'", "|\n", ">-\n", "&a ", "*a", "!!str ", "{", "}", "[", "]", ",",
	"\t", "\r\n", "\n---\n", "\n...\n", "? ", "<<: ", "null", "~", "true", "0x1", "::", "\\", "%", "@", "é", "\u2028", "\ufeff", "\x00"}

func edit(rnd *rand.Rand, text string) string {
	at := func() int { return rnd.IntN(len(text) + 1) }
	switch rnd.IntN(5) {
	case 0, 1:
		i := at()
		return text[:i] + pieces[rnd.IntN(len(pieces))] + text[i:]
	case 2:
		i := at()
		return text[:i] + text[min(len(text), i+1+rnd.IntN(8)):]
	}
	lines := strings.SplitAfter(text, "\n")
	i, j := rnd.IntN(len(lines)), rnd.IntN(len(lines))
	switch rnd.IntN(3) {
	case 0:
		lines[i], lines[j] = lines[j], lines[i]
	case 1:
		lines[i] += lines[j]
	default:
		lines[i] = strings.Repeat(" ", rnd.IntN(5)) + strings.TrimLeft(lines[i], " ")
	}
	return strings.Join(lines, "")
}

// compare reads a text entry by entry and as a whole. It reports whether the text
// could be divided.
func compare(t *testing.T, text string) bool {
	t.Helper()
	d := newDecoder("f.yaml", []byte(text))
	c, err := d.try(asItIs, true)
	if d.undivided {
		return false
	}
	whole, wholeErr := newDecoder("f.yaml", []byte(text)).try(asItIs, false)
	if fmt.Sprint(err) != fmt.Sprint(wholeErr) || !reflect.DeepEqual(c, whole) {
		t.Fatalf("%q\nentry by entry %+v, %v\nas a whole %+v, %v", text, c, err, whole, wholeErr)
	}
	return d.entries != nil
}

// TestEntriesAreTheTree: what is read entry by entry is what the tree of the whole
// text holds, mistakes, their places and warnings included.
func TestEntriesAreTheTree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 3))
	all, divided := texts(t), 0
	for _, text := range all {
		compare(t, text)
	}
	for range 10000 {
		text := all[rnd.IntN(len(all))]
		for range 1 + rnd.IntN(3) {
			text = edit(rnd, text)
		}
		if compare(t, text) {
			divided++
		}
	}
	if divided < 1500 {
		t.Errorf("%d texts were divided", divided)
	}
}

func FuzzEntries(f *testing.F) {
	for _, text := range texts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { compare(t, text) })
}

// TestPlainItems: what package keys writes takes the short way, and so do nearly all
// items of the samples.
func TestPlainItems(t *testing.T) {
	c, err := Load("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := keys.WriteYAML(&b, c.SAs[:1]); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{good + ah, b.String()} {
		e, _ := divide(text)
		if e == nil {
			t.Fatalf("not divided: %s", text)
		}
		for i := range e.len() {
			if new(room).read(e.text[e.starts[i]:e.starts[i+1]], e.depth, e.lines[i]) == nil {
				t.Errorf("item %d of %s is not plain", i, text)
			}
		}
	}
}
