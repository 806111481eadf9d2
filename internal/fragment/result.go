package fragment

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
