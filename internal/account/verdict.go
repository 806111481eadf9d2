package account

import "tapsec/status"

// Verdict is what became of a frame.
type Verdict uint8

// The verdicts. A frame that was cut short by the capture, and fails or has no SPI for it, is
// not judged, since the rest of it tells nothing about what was sent.
const (
	Good Verdict = iota
	GoodBoth
	Failed
	LeftAlone
	NotJudged
	NumVerdicts = iota
)

var verdicts = [NumVerdicts]string{"good", "good, both", "FAILED", "left alone", "not judged"}

// String is the verdict in words.
func (v Verdict) String() string { return verdicts[v] }

// VerdictOf is the verdict of a word; cut says that it may come of bytes that the capture lacks.
func VerdictOf(w status.Word, cut bool) Verdict {
	switch {
	case cut:
		return NotJudged
	case !w.Done():
		return LeftAlone
	case w.Code() != status.Success:
		return Failed
	case w.Next():
		return GoodBoth
	}
	return Good
}
