package inspect

import (
	"fmt"
	"strconv"
	"time"

	"tapsec/internal/account"
	"tapsec/internal/wrap"
	"tapsec/sa"
	"tapsec/status"
)

const verdictWidth = 11 // columns, a space included

var colours = [account.NumVerdicts]string{account.Good: "\x1b[32m", account.GoodBoth: "\x1b[32m", account.Failed: "\x1b[1;31m", account.LeftAlone: "\x1b[2m", account.NotJudged: "\x1b[33m"}

// appendLine appends a frame's line for people: verdict, number, time and addresses, the SAs
// that matched, and anything else there is to say. What is too long continues on an indented
// line.
func (w *worker) appendLine(b []byte, f *frame) []byte {
	word := f.verdict.String()
	if w.i.opt.Colour {
		b = append(append(append(b, colours[f.verdict]...), word...), "\x1b[0m"...)
	} else {
		b = append(b, word...)
	}
	b = append(b, "           "[len(word):verdictWidth]...)
	w.one = f.appendWords(w.one[:0])
	return append(wrap.Append(b, w.one, verdictWidth, wrap.Width-verdictWidth), '\n')
}

// appendWords appends what follows the verdict, on one line.
func (f *frame) appendWords(b []byte) []byte {
	b = appendPadded(b, f.Info.Number, 5)
	if !f.Time.IsZero() {
		b = appendClock(append(b, ' '), f.Time.UTC(), 6)
	}
	if f.src.IsValid() {
		b = f.src.AppendTo(append(b, ' '))
		b = f.dst.AppendTo(append(b, " > "...))
	}
	if f.Carrier != "" {
		b = append(append(b, " out of "...), f.Carrier...)
	}
	t := &f.trailer
	for n := range t.Records[:t.N] {
		if n > 0 {
			b = append(b, ',')
		}
		b = f.appendRecord(append(b, ' '), n)
	}
	if f.verdict == account.NotJudged || t.Reason != status.Verified {
		b = f.appendWhy(append(b, ": "...))
	}
	if f.Replayed {
		b = append(b, ", replayed"...)
	}
	if f.Late {
		b = append(b, ", late"...)
	}
	if t.Word.DeleteSA() {
		b = append(b, "; the NIC asks for the SA's deletion"...)
	}
	return b
}

// appendWhy says why the frame is not simply good.
func (f *frame) appendWhy(b []byte) []byte {
	t := &f.trailer
	if f.verdict == account.NotJudged {
		return fmt.Appendf(b, "its last %d bytes were not captured", f.Missing)
	}
	if t.Word.Done() && t.Word.Code() == status.Success {
		b = append(b, "what the tunnel carries is left alone, "...)
	}
	if f.Unmatched {
		b = fmt.Appendf(b, "%s SPI %s", f.Header.Protocol, f.Header.SPI)
		if f.Header.Src != f.src || f.Header.Dst != f.dst {
			b = fmt.Appendf(b, " from %s to %s", f.Header.Src, f.Header.Dst)
		}
		b = append(b, ", "...)
	}
	b = append(b, t.Reason.Sentence()...)
	if t.Word.Code() != status.Success {
		b = append(append(b, ", "...), t.Word.Code().String()...)
	}
	return b
}

func (f *frame) appendRecord(b []byte, n int) []byte {
	rec := &f.trailer.Records[n]
	b = append(append(b, sa.Protocol(rec.Protocol).String()...), ' ')
	b = append(f.appendName(b, n), " seq "...)
	return strconv.AppendUint(b, rec.Number, 10)
}

// appendName names a record's SA. The handles in another program's trailer mean nothing
// here, so the SPI stands in.
func (f *frame) appendName(b []byte, n int) []byte {
	if name := f.names[n]; name != "" {
		return append(b, name...)
	}
	return appendHex(append(b, "0x"...), f.trailer.Records[n].SPI)
}

// appendComment appends a frame's comment, in whole sentences.
func (f *frame) appendComment(b []byte) []byte {
	t, cut := &f.trailer, f.verdict == account.NotJudged
	if t.Word.Code() != status.Success && !cut {
		b = append(append(b, t.Word.Code().String()...), "  "...)
	}
	for n := range t.Records[:t.N] {
		rec := &t.Records[n]
		if n > 0 {
			b = append(b, ", "...)
		}
		b = append(append(b, rec.Portion.String()...), ' ')
		b = f.appendRecord(b, n)
	}
	if t.N > 0 {
		b = append(b, ": "...)
	}
	if t.Word.Done() && t.Word.Code() == status.Success && t.Reason != status.Verified {
		b = append(b, "the tunnel is good, what it carries is left alone: "...)
	}
	if f.Unmatched {
		b = fmt.Appendf(b, "%s: ", f.Header)
	}
	if cut {
		b = append(b, "nobody can check what was not captured"...)
	} else {
		b = append(b, t.Reason.Sentence()...)
	}
	if f.Replayed {
		b = append(b, "; a window of the SA's size refuses its number, which came before or is too old"...)
	}
	if t.Word.DeleteSA() {
		b = append(b, "; the NIC asks for the SA's deletion"...)
	}
	if f.Missing > 0 {
		b = fmt.Appendf(b, " (the capture lacks its last %d bytes)", f.Missing)
	}
	return b
}

func appendPadded(b []byte, n, width int) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], int64(n), 10)
	for range width - len(d) {
		b = append(b, ' ')
	}
	return append(b, d...)
}

// appendClock is the time of day, with so many digits of a second's fraction.
func appendClock(b []byte, t time.Time, digits int) []byte {
	hour, minute, second := t.Clock()
	b = appendTwo(b, hour)
	b = appendTwo(append(b, ':'), minute)
	b = append(appendTwo(append(b, ':'), second), '.')
	for unit, ns := 100000000, t.Nanosecond(); digits > 0; unit, digits = unit/10, digits-1 {
		b = append(b, byte('0'+ns/unit%10))
	}
	return b
}

func appendTwo(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

const hexDigits = "0123456789abcdef"

func appendHex(b []byte, n uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hexDigits[n>>shift&15])
	}
	return b
}
