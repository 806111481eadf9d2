package ledger

import (
	"bytes"
	"iter"
	"os"
	"strings"
	"testing"
)

// damages are ways in which a file may be altered, each with its text.
func damages(text []byte) iter.Seq2[string, []byte] {
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:len(lines)-1]
	without := func(i int) []byte { return bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil) }
	return func(yield func(string, []byte) bool) {
		for at := range text {
			flipped := bytes.Clone(text)
			flipped[at] ^= 1 << (at % 8)
			zeros := append(bytes.Clone(text[:at]), make([]byte, len(text)-at)...)
			twice := append(bytes.Clone(text), text[at:]...)
			if !yield("a bit", flipped) || !yield("cut", text[:at]) || !yield("zeros", zeros) || at%16 == 0 && !yield("its end twice", twice) {
				return
			}
		}
		for i, line := range lines {
			if !yield("no line", without(i)) || !yield("a line again", append(bytes.Clone(text), line...)) ||
				!yield("a line elsewhere", append(without(i), line...)) && i < len(lines)-1 {
				return
			}
		}
	}
}

// Whatever becomes of the file's bytes: it is refused, or no number of it is given or taken again.
func TestDamage(t *testing.T) {
	path, s := statePath(t), newSA(1, gcm)
	l, err := open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	const last = 300
	for n := uint64(1); n <= last; n++ { // the lease of each second packet or so is a line
		next(t, l.Counter(s), n)
		accept(t, l.Inbound(s), Fresh, n)
	}
	l.keeper.journal.close()
	killed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l = opened(t, path)
	closed(t, l)
	ended, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(killed, []byte("\n")); n < 4 {
		t.Fatalf("%d lines:\n%s", n, killed)
	}
	for _, text := range [][]byte{killed, ended} {
		refused := map[string]int{}
		for how, damaged := range damages(text) {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := open(path, nil)
			if err != nil {
				if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
					t.Fatalf("%s: said %v", how, err)
				}
				refused[how]++
				continue
			}
			if n, top := l.Counter(s).Peek(), l.Inbound(s).Window().Top; n <= last || top < last {
				t.Errorf("%s: goes on at %d, and refuses up to %d\n%s", how, n, top, damaged)
			}
			l.keeper.journal.close()
		}
		if refused["a bit"] != len(text) || refused["cut"] != len(text) {
			t.Errorf("of %d bytes, refused %v", len(text), refused)
		}
	}
}

// A machine that stops may leave of what was written last only a part, and a header that does not know of it.
func TestStopped(t *testing.T) {
	path, s := statePath(t), newSA(1, gcm)
	l, err := open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for n := uint64(1); len(texts) < 3; n += 100 {
		l.Counter(s).Raise(n)
		next(t, l.Counter(s), n)
		l.keeper.renew(false)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	l.keeper.journal.close()
	before, after := texts[1], texts[2]
	header := bytes.IndexByte(before, '\n')
	for end := len(before); end <= len(after); end++ {
		stopped := append(bytes.Clone(before[:header]), after[header:end]...)
		for _, text := range [][]byte{stopped, append(bytes.Clone(stopped), make([]byte, len(after)-end)...)} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := open(path, nil)
			if err != nil {
				t.Fatalf("%d bytes of %d to %d: %v", end, len(before), len(after), err)
			}
			want := uint64(102) // used was 101
			if end == len(after) {
				want = 202
			}
			if n := l.Counter(s).Peek(); n < want {
				t.Errorf("%d bytes of %d: goes on at %d", end, len(after), n)
			}
			l.keeper.journal.close()
		}
	}
}
