package inspect

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"tapsec/internal/account"
	"tapsec/internal/wrap"
	"tapsec/sa"
)

// Summary is the sum over a capture (docs/json.md).
type Summary struct {
	Frames    uint64 `json:"frames"`
	Judged    uint64 `json:"judged"` // all except failing ones that the capture cut short
	Good      uint64 `json:"good"`
	GoodBoth  uint64 `json:"good_both"` // of those: with a tunnel and a transport portion
	Failed    uint64 `json:"failed"`
	LeftAlone uint64 `json:"left_alone"`
	Unopened  uint64 `json:"unopened"` // of those: with AH or ESP
	Replayed  uint64 `json:"replayed"`
	Late      uint64 `json:"late"`
	LeftOut   uint64 `json:"left_out"` // not counted above: of an unknown link type, delivered by a NIC, or without a trailer to show

	Annotated uint64 `json:"annotated"` // frames that came with a trailer of ours and were judged all the same

	SAs    []account.Row  `json:"sas"`
	Others account.Others `json:"others"` // headers without an SA that are not in sas
	Silent []string       `json:"silent"` // SAs without a frame, of those that are asked for
}

func (s *Summary) count(f *frame) {
	s.Frames++
	if f.verdict != account.NotJudged {
		s.Judged++
	}
	switch f.verdict {
	case account.GoodBoth:
		s.GoodBoth++
		s.Good++
	case account.Good:
		s.Good++
	case account.Failed:
		s.Failed++
	case account.LeftAlone:
		s.LeftAlone++
		if f.trailer.Reason.OfIPsec() {
			s.Unopened++
		}
	}
	if f.Replayed {
		s.Replayed++
	}
	if f.Late {
		s.Late++
	}
}

// Summary returns the sum of what was inspected so far.
func (i *Inspector) Summary() *Summary {
	s := i.sum
	s.SAs, s.Others = i.account.Rows()
	for n := range s.SAs {
		r := &s.SAs[n]
		r.Diagnosis = append(r.Diagnosis, i.why.Findings(r.Handle, r.Header)...)
	}
	s.Silent = []string{}
	for _, name := range i.account.Silent() {
		if i.opt.awaits(name) {
			s.Silent = append(s.Silent, name)
		}
	}
	return &s
}

// String counts the frames in one sentence.
func (s *Summary) String() string {
	both, cut := "", ""
	if s.GoodBoth > 0 {
		both = fmt.Sprintf(" (%d of them in both portions)", s.GoodBoth)
	}
	if n := s.Frames - s.Judged; n > 0 {
		cut = fmt.Sprintf(", %d not judged since the capture lacks their ends", n)
	}
	return fmt.Sprintf("%s: %d good%s, %d failed, %d left alone%s", wrap.Count(s.Frames, "frame"), s.Good, both, s.Failed, s.LeftAlone, cut)
}

// Rows are the accounts of the SAs and of so many headers without one; more is how many headers
// are left.
func (s *Summary) Rows(strays int) (rows []account.Row, more uint64) {
	more = s.Others.Headers
	for _, r := range s.SAs {
		switch {
		case r.SA != "":
		case strays == 0:
			more++
			continue
		default:
			strays--
		}
		rows = append(rows, r)
	}
	return rows, more
}

// maxStrays is how many headers without an SA get lines.
const maxStrays = 20

// Table writes the account of each SA within wrap.Width columns, and the sum.
func (s *Summary) Table(out io.Writer) error {
	var b strings.Builder
	if len(s.SAs) > 0 {
		fmt.Fprintf(&b, "%-*s %-14s %6s %6s %6s %6s %6s %6s\n", nameWidth, "SA", "SPI", "good", "failed", "alone", "lost", "double", "late")
	}
	rows, more := s.Rows(maxStrays)
	for i := range rows {
		rowLines(&b, &rows[i])
	}
	if more > 0 {
		fmt.Fprintf(&b, "and %s more that no SA matches\n", wrap.Count(more, "header"))
	}
	if len(s.Silent) > 0 {
		b.WriteString(wrap.Text("no frame of "+sa.Few(s.Silent, 8, ", "), 2, wrap.Width) + "\n")
	}
	b.WriteString(wrap.Text(s.String(), 2, wrap.Width) + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

const nameWidth = 22

// rowLines writes an SA's counts, and beneath them the details.
func rowLines(b *strings.Builder, r *account.Row) {
	name, failed := r.SA, uint64(0)
	name = cmp.Or(name, "(no SA)")
	for _, n := range r.Failed {
		failed += n
	}
	pad := strings.Repeat(" ", max(0, nameWidth-utf8.RuneCountInString(name)))
	if utf8.RuneCountInString(name) > nameWidth {
		pad = "\n" + strings.Repeat(" ", nameWidth)
	}
	fmt.Fprintf(b, "%s%s %-14s", name, pad, strings.TrimSpace(r.Protocol+" "+r.SPI))
	for _, n := range []uint64{r.Good, failed, r.LeftAlone, r.Lost, r.Duplicates, r.Late} {
		fmt.Fprintf(b, " %6s", short(n))
	}
	b.WriteByte('\n')
	fmt.Fprintf(b, "  %s\n", wrap.Text(details(r, failed), 4, wrap.Width-2))
	for _, f := range r.Diagnosis {
		certain := "perhaps"
		if f.Certain {
			certain = "certain"
		}
		fmt.Fprintf(b, "  %s\n", wrap.Text(f.Cause+", "+certain+": "+f.Sentence, 4, wrap.Width-2))
	}
}

// details are what an SA's row has no column for.
func details(r *account.Row, failed uint64) string {
	parts := []string{r.Src + " > " + r.Dst}
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case r.FirstSeq == "":
	case r.FirstSeq == r.LastSeq:
		say("seq %s", r.FirstSeq)
	default:
		say("seq %s to %s", r.FirstSeq, r.LastSeq)
	}
	if failed > 0 {
		say("failed: %s", byReason(r.Failed))
	}
	if r.NotJudged > 0 {
		say("not judged: %d", r.NotJudged)
	}
	if r.Late > 0 {
		say("late by up to %d, a window of %d loses none", r.MaxLate, r.SmallestWindow)
	}
	if r.Replayed > 0 {
		say("%d replayed, refused by a window of %d", r.Replayed, r.Window)
	}
	if r.Wraps > 0 {
		say("wrapped: %d", r.Wraps)
	}
	if r.RekeyedTo != "" {
		say("followed by %s", r.RekeyedTo)
	}
	if !r.Exact {
		say("too many gaps to remember: counts are near")
	}
	return strings.Join(parts, "; ")
}
