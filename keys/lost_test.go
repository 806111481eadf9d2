package keys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/sa"
)

// A text that has lost a line, has it twice, in another place or as a part of the one before,
// or that ends before its end, gives no SA other algorithms, keys or addresses than it has, and
// loses none without a note.
func TestLinesLost(t *testing.T) {
	files, _ := filepath.Glob("testdata/field/*")
	more, _ := filepath.Glob("testdata/*.*")
	for _, file := range append(files, more...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := plainText(data[:min(len(data), 5000)])
		whole, err := Read("x", []byte(text))
		if err != nil {
			continue
		}
		known := map[string]bool{}
		for _, s := range whole.All {
			known[material(s)] = true
		}
		for _, s := range whole.Former {
			known[material(s.SA)] = true
		}
		refused := strings.Join(whole.Notes, "\n") // for lines of theirs
		count := len(whole.All)
		if Detect(data) == ESPSA || Detect(data) == Charon && !strings.Contains(text, "established with SPIs") {
			count = 0 // nothing else tells of an SA that is missing
		}
		lines := strings.SplitAfter(text, "\n")
		mailed := strings.HasSuffix(file, "setkey-freebsd.txt") // 24 bytes of 32 are a key, too; setkey has 32 in a line
		for i, line := range lines {
			if mailed && setkeyMore.MatchString(strings.TrimSpace(line)) {
				continue
			}
			part := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
			if why := differs(part, known, refused, count); why != "" {
				t.Errorf("%s without line %d, %q: %s", file, i+1, line, why)
			}
		}
		for i := range len(lines) - 1 {
			before, line, next, behind := strings.Join(lines[:i], ""), lines[i], lines[i+1], strings.Join(lines[i+2:], "")
			if mailed && setkeyMore.MatchString(strings.TrimSpace(next)) {
				continue
			}
			for how, part := range map[string]string{
				"swapped": before + next + line + behind,
				"twice":   before + line + line + next + behind,
				"joined":  before + strings.TrimSuffix(line, "\n") + " " + next + behind,
			} {
				if why := differs(part, known, refused, 0); why != "" {
					t.Errorf("%s, %s line %d, %q: %s", file, how, i+1, line, why)
				}
			}
		}
		for i := 0; i < len(text); i += 11 {
			if why := differs(text[:i], known, refused, 0); why != "" {
				t.Errorf("%s up to %d, %q: %s", file, i, text[max(0, i-30):i], why)
			}
		}
	}
}

// material is what a frame is opened with.
func material(s *sa.SA) string {
	return fmt.Sprintf("%s %08x to %s: %s %x %x", s.Protocol, s.SPI, s.Dst, s.Suite.Name, s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes())
}

// differs names an SA of a part that is not known and in no note, nor refused in the whole; and
// if there should be a count of them and are fewer, that nothing is said.
func differs(part string, known map[string]bool, refused string, count int) string {
	read, err := Read("x", []byte(part))
	if err != nil {
		return ""
	}
	for _, s := range read.All {
		if !known[material(s)] && !strings.Contains(strings.Join(read.Notes, "\n")+refused, s.Name) {
			return fmt.Sprintf("%s, and the notes are %q", material(s), read.Notes)
		}
	}
	if len(read.All) < count && len(read.Notes) == 0 {
		return fmt.Sprintf("%d SAs of %d, without a note", len(read.All), count)
	}
	return ""
}
