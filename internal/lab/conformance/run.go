package conformance

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tapsec/status"
)

// NIC is a NIC under test.
type NIC interface {
	// Ready makes it the NIC that the setup's cases are for. ErrNotRun says that it cannot be
	// that.
	Ready(*Setup) error

	// Exchange sends the frames into the wire, in order, and returns those that came to the
	// host, until as many have come or no more do.
	Exchange(frames [][]byte) (delivered [][]byte, err error)
}

// ErrNotRun is wrapped by errors of Ready that leave the setup's cases out. The report names
// those cases.
var ErrNotRun = errors.New("not run")

// Result is what became of a case.
type Result struct {
	Case
	Setup   string
	Seen    status.Trailer // what the NIC said, if it said anything
	Differs error          // how it differs from what is expected; nil if it passed; wraps ErrNotRun if the frame was not sent
}

// Passed reports whether the NIC did what it must.
func (r *Result) Passed() bool { return r.Differs == nil }

// atOnce is how many frames are in flight, fewer than a TAP queues.
const atOnce = 64

// Run sends every case of the setups to the NIC, setup by setup, and judges what it delivers. It
// ends early with an error if the NIC cannot be reached.
//
// Each frame has its own source MAC address, which no NIC looks at. It identifies the frame
// even if others are lost, doubled or reordered.
func Run(nic NIC, setups []Setup) (results []Result, err error) {
	for i := range setups {
		l := &setups[i]
		if err := nic.Ready(l); errors.Is(err, ErrNotRun) {
			for _, c := range l.Cases {
				results = append(results, Result{Case: c, Setup: l.Name, Differs: err})
			}
			continue
		} else if err != nil {
			return results, fmt.Errorf("setup %s: %w", l.Name, err)
		}
		for cases := range slices.Chunk(l.Cases, atOnce) {
			answers, err := exchange(nic, cases, len(results))
			if err != nil {
				return results, fmt.Errorf("setup %s: %w", l.Name, err)
			}
			for i := range cases {
				results = append(results, answers[i].judge(stamped(cases[i], len(results)), l))
			}
		}
	}
	return results, nil
}

// answer is what came for a frame.
type answer struct {
	frame []byte
	times int
}

// exchange sends cases, the first of which has that number in the run.
func exchange(nic NIC, cases []Case, first int) ([]answer, error) {
	var frames [][]byte
	for i, c := range cases {
		frames = append(frames, stamped(c, first+i).Frame)
	}
	delivered, err := nic.Exchange(frames)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, len(cases))
	for _, d := range delivered {
		// What came too late for an earlier batch is not ours.
		if n, ok := number(d); ok && n >= first && n < first+len(cases) {
			a := &answers[n-first]
			a.frame = d
			a.times++
		}
	}
	return answers, nil
}

func (a answer) judge(c Case, l *Setup) Result {
	r := Result{Case: c, Setup: l.Name}
	switch a.times {
	case 0:
		r.Differs = errors.New("nothing came to the host; every frame must, failed ones too")
	case 1:
		_, r.Seen, _ = status.Split(a.frame) // Check says what is wrong with it
		r.Differs = c.Check(a.frame)
	default:
		r.Differs = fmt.Errorf("it came to the host %d times", a.times)
	}
	return r
}

// Where a frame's number in the run stands: after three bytes of its source address that
// only frames of a run have (the first means locally administered).
const (
	source     = 6
	sourceEnd  = 12
	numbers    = 1 << 24 // more cases than there will ever be
	stampBytes = "\x02ts"
)

// stamped is the case with its number in the frame and in the expected result.
func stamped(c Case, n int) Case {
	for _, f := range []*[]byte{&c.Frame, &c.InPlace, &c.Decap} {
		if *f != nil {
			b := bytes.Clone(*f)
			binary.BigEndian.PutUint32(b[source+2:], uint32(n))
			copy(b[source:], stampBytes)
			*f = b
		}
	}
	return c
}

// Stamped reports whether a frame, as sent or as delivered, belongs to a run.
func Stamped(frame []byte) bool {
	return len(frame) >= sourceEnd && string(frame[source:source+len(stampBytes)]) == stampBytes
}

func number(frame []byte) (n int, ok bool) {
	if !Stamped(frame) {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(frame[source+2:]) & (numbers - 1)), true
}

// Sort puts results into the order of the contract's table, with the vectors
// after it as they stand in their files.
func Sort(results []Result) {
	slices.SortStableFunc(results, func(x, y Result) int { return cmp.Compare(x.place(), y.place()) })
}

// place is where Sort puts a case: at its row's number, or after all rows.
func (c *Case) place() int {
	if c.Row == "" {
		return behindRows + c.order
	}
	n, err := strconv.Atoi(strings.TrimRight(c.Row, "b"))
	if err != nil {
		panic("conformance: row " + c.Row)
	}
	return n
}

const behindRows = 1000
