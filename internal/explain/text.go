package explain

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"

	"tapsec/internal/account"
	"tapsec/internal/wrap"
)

// The colours of the head line and of the mark.
const (
	red, green, dim, plain = "\x1b[1;31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
)

// Text writes the account for people, within 80 columns.
func (f *Frame) Text(to io.Writer, capture string, colour bool) error {
	w := &writer{Writer: bufio.NewWriter(to), colour: colour}
	d := f.Document()
	d.head(w, capture)
	f.dump(w)
	d.stages(w)
	fmt.Fprintln(w)
	w.entry("rules", d.Law)
	for _, n := range d.NearMisses {
		certainty := "perhaps"
		if n.Certain {
			certainty = "certain"
		}
		w.entry("near miss", n.Cause+", "+certainty+": "+n.Sentence)
	}
	for _, line := range d.Story {
		w.entry("the SA", line)
	}
	for _, o := range d.Others {
		w.entry(o.Who, o.Says)
	}
	w.entry("help", "tapsec help "+d.Reason)
	return w.Flush()
}

type writer struct {
	*bufio.Writer
	colour bool
	last   string // the key of the entry before
}

func (w *writer) paint(colour, text string) string {
	if !w.colour {
		return text
	}
	return colour + text + plain
}

const keyWidth = 11

// entry writes a key and its text. It does not repeat the key of the previous entry.
func (w *writer) entry(key, text string) {
	if key == w.last {
		key = ""
	} else {
		w.last = key
	}
	fmt.Fprintf(w, "%-*s%s\n", keyWidth, key, wrap.Text(text, keyWidth, wrap.Width-keyWidth))
}

// stage writes a stage's findings, each after its offset.
func (w *writer) stage(s *Stage) {
	const offset = 6
	for i, line := range s.Lines {
		name, at := s.Name, ""
		if i > 0 {
			name = ""
		}
		if line.At >= 0 {
			at = fmt.Sprint(line.At)
		}
		fmt.Fprintf(w, "%-*s%*s  %s\n", keyWidth, name, offset-2, at, wrap.Text(line.Text, keyWidth+offset, wrap.Width-keyWidth-offset))
	}
}

// colours are those of the verdicts.
var colours = map[string]string{"FAILED": red, "good": green, "good, both": green}

// short writes the head of an account, what the stages found, and what became of the frame
// behind them. from is what it is of.
func (d *Document) short(to io.Writer, from, fate string, colour bool) error {
	w := &writer{Writer: bufio.NewWriter(to), colour: colour}
	d.head(w, from)
	d.stages(w)
	if fate != "" {
		w.entry("host", fate)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func (d *Document) stages(w *writer) {
	for i := range d.Stages {
		w.stage(&d.Stages[i])
	}
}

func (d *Document) head(w *writer, from string) {
	verdict := d.Verdict
	if d.Missing > 0 && verdict == "not judged" {
		verdict += ": the capture lacks the frame's end"
	}
	fmt.Fprintf(w, "%s %s: %s\n", w.paint(cmp.Or(colours[d.Verdict], dim), verdict), d.Reason, wrap.Text(d.Sentence, 2, wrap.Width-len(verdict)-len(d.Reason)-3))
	line := fmt.Sprintf("frame %d of %s, %d bytes", d.Frame, from, d.WireLength)
	if !d.Time.IsZero() {
		line += d.Time.Format(", 2006-01-02 15:04:05.000000 UTC")
	}
	if d.Interface != "" && !strings.HasPrefix(from, d.Interface) {
		line += ", " + d.Interface
	}
	if d.Src != "" {
		line += fmt.Sprintf(", %s > %s", d.Src, d.Dst)
	}
	if d.Carrier != "" {
		line += ", out of " + d.Carrier
	}
	if d.Missing > 0 {
		line += fmt.Sprintf(", its last %d bytes were not captured", d.Missing)
	}
	if d.Replayed {
		line += ", a replay to the SA's window"
	}
	if d.Late {
		line += ", late"
	}
	fmt.Fprintf(w, "  %s\n\n", wrap.Text(line, 4, wrap.Width-2))
}

// story says what became of the SA's other frames.
func (f *Frame) story() []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	s := &f.Story
	if f.who == (who{}) {
		return nil
	}
	all = append(all, f.before())
	switch next := strings.ToLower(s.NextFate.String()); {
	case s.FirstGood > 0 && s.Next > 0:
		say("after it frame %d is good and frame %d %s", s.FirstGood, s.Next, next)
	case s.FirstGood > 0:
		say("after it frame %d is good", s.FirstGood)
	case s.Next > 0 && f.who.handle != 0:
		say("after it none is good; frame %d is the next, %s", s.Next, next)
	case s.Next > 0:
		say("after it frame %d is the next", s.Next)
	}
	if r := f.Row; r != nil && r.FirstSeq != "" {
		text := fmt.Sprintf("in the whole capture numbers %s to %s: %d lost, %d doubled, %d late", r.FirstSeq, r.LastSeq, r.Lost, r.Duplicates, r.Late)
		if r.RekeyedTo != "" {
			text += ", followed by " + r.RekeyedTo
		}
		all = append(all, text)
	}
	return all
}

// before counts the SA's frames before this one. What has no SA can only be left alone.
func (f *Frame) before() string {
	s := &f.Story
	if s.Before == ([account.NumVerdicts]int{}) {
		return "this is its first frame here"
	}
	var parts []string
	for is, n := range s.Before {
		if n > 0 || f.who.handle != 0 && (account.Verdict(is) == account.Good || account.Verdict(is) == account.Failed) {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(account.Verdict(is).String())))
		}
	}
	text := "before this frame " + strings.Join(parts, ", ")
	if s.LastGood > 0 {
		text += fmt.Sprintf("; the last good one is frame %d", s.LastGood)
	}
	return text
}

// The bytes on a line of the dump, and how many lines are shown before the marked
// one.
const (
	perLine = 16
	context = 3
)

// dump writes the frame's beginning, and the bytes around the marked ones.
func (f *Frame) dump(w *writer) {
	s := f.Span()
	b := f.Bytes
	if s.Opened && f.Opened != nil {
		b = f.Opened
		fmt.Fprintln(w, "  as the tunnel was opened:")
	}
	from, to := s.From/perLine, (max(s.To, s.From+1)-1)/perLine
	to = min(to, from+context) // only the beginning of a long span
	elided := false
	for line := 0; line*perLine < len(b); line++ {
		if line > context && (line < from-1 || line > to+1) {
			if !elided {
				fmt.Fprintln(w, "  ...")
			}
			elided = true
			continue
		}
		elided = false
		at := line * perLine
		row := b[at:min(len(b), at+perLine)]
		fmt.Fprintf(w, "  %4d  %-49s %s\n", at, hexOf(row), printable(row))
		if line >= from && line <= to && s.To > s.From {
			w.mark(&s, at, len(row), line == to)
		}
	}
	fmt.Fprintln(w)
}

// mark underlines the span's bytes in a line of the dump.
func (w *writer) mark(s *Span, at, n int, last bool) {
	var b strings.Builder
	for i := range n {
		mark := "  "
		if at+i >= s.From && at+i < s.To {
			mark = "^^"
		}
		if i == perLine/2 {
			b.WriteByte(' ')
		}
		b.WriteString(mark + " ")
	}
	text := strings.TrimRight(b.String(), " ")
	if label := " " + s.What; last && len(text)+len(label) <= wrap.Width-8 {
		text += label
	} else if last {
		text += "\n        " + s.What
	}
	fmt.Fprintf(w, "        %s\n", w.paint(red, text))
}

func hexOf(b []byte) string {
	var s strings.Builder
	for i, c := range b {
		if i == perLine/2 {
			s.WriteByte(' ')
		}
		fmt.Fprintf(&s, "%02x ", c)
	}
	return s.String()
}

func printable(b []byte) string {
	s := make([]byte, len(b))
	for i, c := range b {
		if s[i] = c; c < ' ' || c > '~' {
			s[i] = '.'
		}
	}
	return string(s)
}
