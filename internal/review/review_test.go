package review_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapsec/capture"
	"tapsec/internal/exit"
	"tapsec/internal/inspect"
	"tapsec/internal/review"
)

// The contract's frames with both portions, and their SAs.
const config, in = "../../configs/layers.yaml", "../../configs/layers.pcapng"

// said is what came of a review.
type said struct {
	stdout, stderr bytes.Buffer
	err            error
}

// replay reviews layers.pcapng with some options changed.
func replay(change func(*review.Options)) *said {
	var s said
	o := review.Options{Config: config, In: in, Color: "never", Stdin: strings.NewReader(""), Stdout: &s.stdout, Stderr: &s.stderr}
	change(&o)
	s.err = review.Replay(o)
	return &s
}

func (s *said) wants(t *testing.T, code int, words string) {
	t.Helper()
	if got, _ := exit.Code(s.err); got != code || code != 0 && !strings.Contains(s.err.Error(), words) {
		t.Errorf("exit code %d, %v; expected %d, %q", got, s.err, code, words)
	}
}

func create(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What the user can mend is exit.Input, and found before a frame is told of or a file made.
func TestMistakes(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.pcapng")
	for words, change := range map[string]func(*review.Options){
		"one of the two":                     func(o *review.Options) { o.Keys = []string{config} },
		"cannot both come":                   func(o *review.Options) { o.Config, o.In = "-", "-" },
		"--with-keys is about the file of -": func(o *review.Options) { o.WithKeys = true },
		"leave out --form":                   func(o *review.Options) { o.WithKeys, o.Out, o.Form = true, out, "decap" },
		"carries no SAs":                     func(o *review.Options) { o.Config = "" },
		"no such file":                       func(o *review.Options) { o.In = out },
		"expected a pcap or pcapng file":     func(o *review.Options) { o.In = config },
		"--color":                            func(o *review.Options) { o.Color, o.Out = "blue", out },
		"--only":                             func(o *review.Options) { o.Only, o.Out = []string{"nope"}, out },
		"--report: expected a file":          func(o *review.Options) { o.Report = "-" },
		"standard output can be one":         func(o *review.Options) { o.JSON, o.Out = true, "-" },
		"which is in use here":               func(o *review.Options) { o.Out = in },
	} {
		s := replay(change)
		s.wants(t, exit.Input, words)
		if s.stdout.Len() > 0 {
			t.Errorf("%s, and yet it tells\n%s", words, &s.stdout)
		}
		if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s, and yet a file was made: %v", words, err)
		}
	}
}

// Standard output has frames, or a copy of the capture, or the account; the account is on
// standard error where it has not that place to itself.
func TestStreams(t *testing.T) {
	pcapng := string([]byte{0x0a, 0x0d, 0x0d, 0x0a})
	for name, c := range map[string]struct {
		change           func(*review.Options)
		begins, otherEnd string // of standard output; on standard error
	}{
		"text":         {func(*review.Options) {}, "good, both ", "10 frames: "},
		"json":         {func(o *review.Options) { o.JSON = true }, "{", "10 frames: "},
		"copy":         {func(o *review.Options) { o.Out = "-" }, pcapng, "10 frames: "},
		"summary":      {func(o *review.Options) { o.SummaryOnly = true }, "SA ", ""},
		"summary json": {func(o *review.Options) { o.SummaryOnly, o.JSON = true, true }, "{", ""},
		"summary copy": {func(o *review.Options) { o.SummaryOnly, o.Out = true, "-" }, pcapng, "10 frames: "},
	} {
		s := replay(c.change)
		s.wants(t, 0, "")
		if !strings.HasPrefix(s.stdout.String(), c.begins) || !strings.Contains(s.stderr.String(), c.otherEnd) || c.otherEnd == "" && s.stderr.Len() > 0 {
			t.Errorf("%s: on standard output\n%.100q\non standard error\n%s", name, &s.stdout, &s.stderr)
		}
	}
}

// An earlier account is an expectation that the same capture meets. Another is
// exit.Disagree, with the whole account before it.
func TestExpect(t *testing.T) {
	summary := func(o *review.Options) { o.SummaryOnly, o.JSON = true, true }
	first := replay(summary)
	first.wants(t, 0, "")
	expect := func(what string) *said {
		return replay(func(o *review.Options) { summary(o); o.Expect = what })
	}
	expect(create(t, first.stdout.String())).wants(t, 0, "")
	for _, what := range []string{"all-good", create(t, `{"frames": 11}`)} {
		s := expect(what)
		s.wants(t, exit.Disagree, "not as --expect says")
		if s.stdout.String() != first.stdout.String() {
			t.Errorf("the account is then\n%s", &s.stdout)
		}
	}
	expect(create(t, "[")).wants(t, exit.Input, "a part of one: found text that is not JSON")
	expect(create(t, "10 frames: 5 good")).wants(t, exit.Input, "a part of one: found a number")
	expect(create(t, "\n")).wants(t, exit.Input, "a part of one: found nothing")
	expect(create(t, `{"sas": [{"sa": "gateway", "lost": "0"}]}`)).wants(t, exit.Input, "a part of one: sas.lost: found a string")
}

// A capture with its SAs inside needs no other file, is its owner's alone, and has the
// frames as they came: the same account comes of it. Without them it carries none.
func TestKeysInside(t *testing.T) {
	summary := func(o *review.Options) { o.SummaryOnly, o.JSON = true, true }
	first := replay(summary)
	for _, withKeys := range []bool{true, false} {
		out := filepath.Join(t.TempDir(), "out.pcapng")
		replay(func(o *review.Options) { o.Out, o.WithKeys = out, withKeys }).wants(t, 0, "")
		again := replay(func(o *review.Options) { summary(o); o.Config, o.In = "", out })
		if !withKeys {
			again.wants(t, exit.Input, "carries no SAs")
			continue
		}
		again.wants(t, 0, "")
		if again.stdout.String() != first.stdout.String() {
			t.Errorf("the account was\n%s\nand is\n%s", &first.stdout, &again.stdout)
		}
		if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// What was delivered is shown with the verdicts that it has: the account is that of the
// capture of the wire. To judge it again is warned of.
func TestShown(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.pcapng")
	replay(func(o *review.Options) { o.Out = out }).wants(t, 0, "")
	shown := replay(func(o *review.Options) { o.In, o.Shown, o.SummaryOnly, o.JSON = out, true, true, true })
	shown.wants(t, 0, "")
	var sum inspect.Summary
	if err := json.Unmarshal(shown.stdout.Bytes(), &sum); err != nil || !strings.Contains(shown.stdout.String(), `"frames":10`) {
		t.Errorf("%v: %s", err, &shown.stdout)
	}
	again := replay(func(o *review.Options) { o.In = out })
	if !strings.Contains(again.stderr.String(), "10 frames carry a verdict already") {
		t.Errorf("no warning: %s", &again.stderr)
	}
	wire := replay(func(o *review.Options) { o.Shown = true })
	if !strings.Contains(wire.stderr.String(), "left out: 10 frames without a verdict") {
		t.Errorf("nothing is left out: %s", &wire.stderr)
	}
}

// The page explains failures by reading the capture again, and says why where it cannot.
func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*review.Options)
		has    string
	}{
		"file": {func(*review.Options) {}, "ICV computed"},
		"pipe": {func(o *review.Options) {
			file, err := os.Open(in)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { file.Close() })
			o.In, o.Stdin = "-", file
		}, "which is not read twice"},
	} {
		path := filepath.Join(t.TempDir(), "page.html")
		replay(func(o *review.Options) { c.change(o); o.Report = path }).wants(t, 0, "")
		if page, err := os.ReadFile(path); err != nil || !bytes.Contains(page, []byte(c.has)) {
			t.Errorf("%s: no %q in the page of %d bytes, %v", name, c.has, len(page), err)
		}
	}
}

// One frame is that which CAPTURE:N names, and without a number the first that failed.
func TestExplain(t *testing.T) {
	for which, c := range map[string]struct {
		code int
		says string
	}{
		in:         {0, "FAILED"},
		in + ":1":  {0, "frame 1 of"},
		in + ":11": {exit.Input, "11"},
		in + ":0":  {exit.Input, "from 1"},
	} {
		var s said
		s.err = review.Explain(review.Options{Config: config, Color: "never", Stdout: &s.stdout, Stderr: &s.stderr}, which)
		s.wants(t, c.code, c.says)
		if c.code == 0 && !strings.Contains(s.stdout.String(), c.says) {
			t.Errorf("%s: %s", which, &s.stdout)
		}
	}
}

// What is left out of a text with keys is said wherever its SAs are used: the frame may be of that SA.
func TestNotes(t *testing.T) {
	keys := create(t, `src 192.0.2.1 dst 192.0.2.2
	proto comp spi 0x00001001 reqid 0 mode tunnel
src 192.0.2.1 dst 192.0.2.2
	proto esp spi 0x00001003 reqid 0 mode tunnel
	aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
`)
	var s said
	s.err = review.Explain(review.Options{Keys: []string{keys}, Color: "never", Stdout: &s.stdout, Stderr: &s.stderr}, in)
	s.wants(t, 0, "")
	replayed := replay(func(o *review.Options) { o.Config, o.Keys = "", []string{keys} })
	for _, said := range []string{s.stderr.String(), replayed.stderr.String()} {
		if !strings.Contains(said, "skipped") {
			t.Errorf("nothing is said of the SA that was skipped:\n%s", said)
		}
	}
}

// A hint names a flag that the command has: show has no --carriers.
func TestCarriersHint(t *testing.T) {
	var packet bytes.Buffer
	w, err := capture.NewWriter(&packet)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := w.Interface("wire", "")
	inner := "\x45\x00\x00\x24\x00\x00\x00\x00\x40\x32\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02" + "\x00\x00\x10\x01\x00\x00\x00\x01" + "12345678"
	outer := "\x45\x00\x00\x38\x00\x00\x00\x00\x40\x04\x00\x00\xc0\x00\x02\x03\xc0\x00\x02\x04"
	if err := w.Frame(id, time.Unix(1, 0), []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00"+outer+inner), ""); err != nil {
		t.Fatal(err)
	}
	in := create(t, packet.String())
	for _, shown := range []bool{false, true} {
		s := replay(func(o *review.Options) { o.In, o.Shown = in, shown })
		s.wants(t, 0, "")
		if strings.Contains(s.stderr.String(), "--carriers") == shown {
			t.Errorf("show: %t\n%s", shown, &s.stderr)
		}
	}
}
