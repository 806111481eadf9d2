package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"tapsec/status"
)

// Check compares what a NIC delivered for the case's frame, trailer included, with what it
// must be: word, reason and, as far as the case has them, records and every byte. The
// error names all differences.
func (c *Case) Check(delivered []byte) error {
	body, t, err := status.Split(delivered)
	if err != nil {
		return c.withoutTrailer(delivered, err)
	}
	var wrong []error
	differ := func(what string, got, want any) {
		wrong = append(wrong, fmt.Errorf("%s: found %s, expected %s", what, got, want))
	}
	if t.Word != c.Word {
		differ("word", t.Word, c.Word)
	}
	if t.Reason != c.Reason {
		differ("reason", t.Reason.String(), c.Reason.String())
	}
	if got := records(&t); c.Records != nil && !slices.Equal(got, c.Records) {
		differ("records", fmt.Sprintf("%q", got), fmt.Sprintf("%q", c.Records))
	}
	if want := c.delivered(&t); want != nil {
		if at := difference(body, padded(want)); at >= 0 {
			differ(fmt.Sprintf("frame from byte %d on", at), from(body, at), from(padded(want), at))
		}
	}
	return errors.Join(wrong...)
}

// withoutTrailer says what came in the place of a frame with its trailer.
func (c *Case) withoutTrailer(delivered []byte, err error) error {
	is := func(frame []byte) bool {
		return frame != nil && (bytes.Equal(delivered, frame) || bytes.Equal(delivered, padded(frame)))
	}
	switch {
	case errors.Is(err, status.ErrTrailer):
		return errors.New("the CRC-32C or the lengths of its trailer are wrong (docs/trailer.md)")
	case is(c.Frame):
		return errors.New("it came as it was sent, and no trailer follows it (docs/trailer.md)")
	case is(c.InPlace), is(c.Decap):
		return errors.New("it came opened as it should, and no trailer follows it (docs/trailer.md)")
	}
	return errors.New("it came with other bytes, and no trailer follows them (docs/trailer.md)")
}

// difference is where two frames begin to differ; -1 if they do not.
func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return min(len(a), len(b))
}

// from shows a few bytes of a frame.
func from(frame []byte, at int) string {
	const few = 12
	if at == len(frame) {
		return "its end"
	}
	if at+few >= len(frame) {
		return fmt.Sprintf("%x, its end", frame[at:])
	}
	return fmt.Sprintf("%x...", frame[at:at+few])
}

// delivered is the frame in the form in which it came.
func (c *Case) delivered(t *status.Trailer) []byte {
	if t.Form == status.Decap {
		return c.Decap
	}
	return c.InPlace
}

func padded(frame []byte) []byte {
	if n := status.MinFrame - len(frame); n > 0 {
		return append(slices.Clone(frame), make([]byte, n)...)
	}
	return frame
}

func records(t *status.Trailer) (lines []string) {
	for i := range t.Records[:t.N] {
		lines = append(lines, Record(&t.Records[i]))
	}
	return lines
}
