package fragment

import "tapsec/internal/reason"

// Result says what became of a fragment. The zero value is Held.
type Result uint8

// The results. After Duplicate the fragment is lost, and where it says so the datagram, too:
// then later fragments of it get the same result until its time is over (RFC 5722 section
// 4).
const (
	Held        Result = iota // kept: others are missing
	Whole                     // its datagram is complete
	Duplicate                 // a repetition of one held, byte for byte; ignored
	Overlap                   // covers bytes of another fragment; the datagram is lost
	BadEnd                    // ends where the last fragment says it cannot; the datagram is lost
	BadLength                 // empty, cut short, or not a multiple of 8 bytes although others follow
	BadHeader                 // impossible headers; a complete datagram is lost
	TooLong                   // beyond a frame of 65535 bytes; a complete datagram is lost
	ECNMismatch               // complete, but only partly ECN-capable; the datagram is lost
	NumResults  = iota
)

var results = reason.New[Result]("fragment", []reason.Text{
	Held:        {"held", "other fragments of the datagram are missing"},
	Whole:       {"whole", "the datagram is complete"},
	Duplicate:   {"duplicate", "the fragment was there already"},
	Overlap:     {"overlap", "fragments of the datagram overlap"},
	BadEnd:      {"bad-end", "fragments of the datagram contradict each other about its end"},
	BadLength:   {"bad-length", "a fragment is empty, cut short, or not the last one and no multiple of 8 bytes"},
	BadHeader:   {"bad-header", "the headers around a fragment header are too long, or make a fragment again"},
	TooLong:     {"too-long", "the datagram would be longer than a frame of 65535 bytes holds"},
	ECNMismatch: {"ecn-mismatch", "some fragments of the datagram are ECN-capable and others are not"},
})

// String gives the short name.
func (r Result) String() string { return results.Name(r) }

// Sentence says it for people.
func (r Result) Sentence() string { return results.Sentence(r) }
