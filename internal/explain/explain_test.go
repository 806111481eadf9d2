package explain_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/explain"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/wrap"
	"tapsec/status"
)

// lab is the configuration of a lab, and its frames as a capture.
func lab(t *testing.T, l *conformance.Setup) (*configs.Config, []byte) {
	t.Helper()
	var text, file bytes.Buffer
	if err := l.WriteConfig(&text); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(l.Name, text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewWriter(&file)
	if err == nil {
		_, err = w.Interface("wire0", "")
	}
	for i, one := range l.Cases {
		if err == nil {
			err = w.Frame(0, time.Unix(int64(1800000000+i), 0), one.Frame, "")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, file.Bytes()
}

func explained(t *testing.T, c *configs.Config, file []byte, number int) *explain.Frame {
	t.Helper()
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := explain.Capture(nic, c, frames, number)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Every frame of the contract's table is told by the row that it is of, with the word and
// the reason that the row demands, in 80 columns, and without its keys (contract, Every
// frame there is).
func TestRows(t *testing.T) {
	const unsaid = "deleted" // a configuration cannot say that an SA was there and is gone
	seen := map[string]bool{}
	for _, l := range conformance.Contract() {
		if l.Name == unsaid {
			continue
		}
		c, file := lab(t, &l)
		for i, one := range l.Cases {
			f := explained(t, c, file, i+1)
			name := fmt.Sprintf("%s, row %s, %s", l.Name, one.Row, one.Title)
			if f.Trailer.Word != one.Word || f.Trailer.Reason != one.Reason {
				t.Errorf("%s: told as %s %s, want %s %s", name, f.Trailer.Word, f.Trailer.Reason, one.Word, one.Reason)
			}
			if rows := f.Rows(); !slices.Contains(rows, strings.TrimSpace(one.Row)) && !alike(one.Row, rows[0]) {
				t.Errorf("%s: told as of rows %v", name, rows)
			}
			for _, row := range f.Rows() {
				seen[row] = true
			}
			look(t, name, f, &l)
		}
	}
	for _, row := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "15", "17", "18", "19", "20", "21", "22",
		"23", "23b", "24", "25", "26", "28", "29", "30", "31", "32", "33", "34", "35"} {
		if !seen[row] {
			t.Errorf("no frame is told as of row %s", row)
		}
	}
}

// alike are rows between which a frame does not tell: whether what is sealed in a bad
// tunnel was IPsec (14), what lies in a packet that nobody opens (16), and the parts of 23.
func alike(row, told string) bool {
	switch {
	case row == "14":
		return told == "9" || told == "10" || told == "19" || told == "20"
	case row == "16":
		return told == "2" || told == "3"
	case row == "25": // the first of two that are alike
		return told == "11"
	case strings.HasPrefix(row, "23 "):
		return told == "23"
	}
	return false
}

// look judges what stands on the page.
func look(t *testing.T, name string, f *explain.Frame, l *conformance.Setup) {
	t.Helper()
	var text strings.Builder
	if err := f.Text(&text, "lab.pcapng", false); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > wrap.Width {
			t.Errorf("%s: %d columns: %q", name, n, line)
		}
	}
	document, err := json.Marshal(f.Document())
	if err != nil {
		t.Fatal(err)
	}
	page := text.String() + string(document)
	for _, s := range l.SAs() {
		for _, key := range [][]byte{s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()} {
			if len(key) > 0 && strings.Contains(page, hex.EncodeToString(key[:8])) {
				t.Errorf("%s: the page shows a key of %s", name, s.Name)
			}
		}
	}
	span := f.Span()
	if span.To <= span.From || span.What == "" {
		t.Errorf("%s: nothing is marked: %+v", name, span)
	}
	if !strings.Contains(page, "^^") {
		t.Errorf("%s: no mark:\n%s", name, text.String())
	}
}

// Whatever a frame is: it is told within 80 columns, with the verdict that Process has for it.
func FuzzExplain(f *testing.F) {
	labs := conformance.Contract()
	var all []*configs.Config
	for i := range labs[:6] {
		for _, one := range labs[i].Cases {
			f.Add(one.Frame, uint8(i))
		}
		var text bytes.Buffer
		if err := labs[i].WriteConfig(&text); err != nil {
			f.Fatal(err)
		}
		c, err := configs.Parse(labs[i].Name, text.Bytes())
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, c)
	}
	f.Fuzz(func(t *testing.T, frame []byte, which uint8) {
		if len(frame) == 0 || len(frame) > 4096 {
			return
		}
		c := all[int(which)%len(all)]
		nic, err := appliance.NewOffline(c)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1800000000, 0)
		_, want, err := status.Split(nic.Process(bytes.Clone(frame), at))
		if err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		w, err := capture.NewWriter(&file)
		if err == nil {
			_, err = w.Interface("wire0", "")
		}
		if err == nil {
			err = w.Frame(0, at, frame, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		told := explained(t, c, file.Bytes(), 1)
		if told.Trailer.Word != want.Word || told.Trailer.Reason != want.Reason {
			t.Fatalf("told as %s %s, the NIC says %s %s", told.Trailer.Word, told.Trailer.Reason, want.Word, want.Reason)
		}
		var text strings.Builder
		if err := told.Text(&text, "file", false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			if utf8.RuneCountInString(line) > wrap.Width+1 {
				t.Fatalf("too long: %q", line)
			}
		}
		told.Document()
	})
}
