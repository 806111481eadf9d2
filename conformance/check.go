package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"tapsec/status"
)

// Check holds what a NIC delivered for the case's frame, trailer included,
// against what it must be: word, reason, and as far as the case says them the
// records and every byte. The error names all that differs.
func (c *Case) Check(delivered []byte) error {
	body, t, err := status.Split(delivered)
	if err != nil {
		return err
	}
	var wrong []error
	differ := func(what string, got, want any) {
		wrong = append(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
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
	if want := c.delivered(&t); want != nil && !bytes.Equal(body, padded(want)) {
		differ("frame", fmt.Sprintf("%x", body), fmt.Sprintf("%x", padded(want)))
	}
	return errors.Join(wrong...)
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
