package diagnosis

import (
	"fmt"
	"hash/maphash"
	"strings"

	"tapsec/internal/account"
	"tapsec/status"
	"tapsec/wire"
)

// An IPsec host's own capture has packets twice: Linux shows a packet out of a tunnel on the
// interface again, after the frame that it came in (docs/diagnosis.md says in which modes).
// Two such frames are twins.

const (
	maxWaiting  = 1024 // frames whose twin may be still to come
	giveUp      = 8192 // good frames of tunnels after which a capture without twins has none
	nearFailed  = 8    // frames within which the twin of a failed one has to come
	numbersKept = 8    // frame numbers that are named
)

// twins are the frames that wait for their twins, in the order in which they came.
type twins struct {
	seed    maphash.Seed
	waiting [maxWaiting]waiter
	first   map[uint64]int // by print: the place of the first that waits
	next    int            // place
	came    int
	paired  map[stations]bool // stations between which there was a pair
}

// stations are the MAC addresses of a frame, in order: the host that captures shows twins only
// of what it receives.
type stations [12]byte

// maxStations is how many pairs of stations are distinguished.
const maxStations = 64

// waiter is a frame that waits for its twin.
type waiter struct {
	of     *subject // nil: it no longer waits
	print  uint64
	number int
	failed bool
	behind int // place of the next one with this print, -1: none
}

// shown is what was seen of an SA's twins.
type shown struct {
	pairs, failed  int // good frames with a twin, and failed ones
	exact          int // of the failed ones: byte for byte
	without        int // good frames without one
	named, unnamed []int
	between        stations // of the latest frame
	pending        int      // number of the latest frame that failed, 0: none
	least, most    int      // bytes of the packet in it
}

func newTwins() *twins {
	return &twins{seed: maphash.MakeSeed(), first: map[uint64]int{}, paired: map[stations]bool{}}
}

// print is the same for a packet in a tunnel and its twin: a hash of all but TOS, which takes
// ECN from the tunnel (RFC 6040), and IPv4's checksum.
func (w *twins) print(frame []byte, p *wire.Packet) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	b := frame[p.Start:p.Reach]
	if p.Version == 4 {
		h.Write(b[2:10])
		h.Write(b[12:])
	} else {
		h.Write(b[2:])
	}
	return h.Sum64()
}

// off reports whether so much has come without a pair that there will be none.
func (w *twins) off() bool { return len(w.paired) == 0 && w.came > giveUp }

// opened makes a tunnel's frame that is good, or whose AH failed, wait for its twin.
func (w *twins) opened(s *subject, frame []byte, f *account.Frame, rec *status.Record, number int) {
	p, ok := account.OwnPacket(frame)
	if f.Trailer.Removed == 0 {
		p, ok = account.Inside(frame, rec)
	}
	if !ok || p.Short {
		return
	}
	w.came++
	at := &w.waiting[w.next]
	if at.of != nil {
		w.lose(at)
	}
	*at = waiter{s, w.print(frame, &p), number, rec.State != status.ICVValid, -1}
	w.append(at.print, w.next)
	w.next = (w.next + 1) % maxWaiting
}

// append puts a place after the others with the same print.
func (w *twins) append(print uint64, place int) {
	i, there := w.first[print]
	if !there {
		w.first[print] = place
		return
	}
	for w.waiting[i].behind >= 0 {
		i = w.waiting[i].behind
	}
	w.waiting[i].behind = place
}

// pop takes the first one with a print out.
func (w *twins) pop(print uint64) *waiter {
	i, there := w.first[print]
	if !there {
		return nil
	}
	at := &w.waiting[i]
	if at.behind >= 0 {
		w.first[print] = at.behind
	} else {
		delete(w.first, print)
	}
	return at
}

// lose gives up waiting for the twin of the oldest frame.
func (w *twins) lose(at *waiter) {
	w.pop(at.print)
	if !at.failed {
		at.of.shown.without++
		at.of.shown.unnamed = name(at.of.shown.unnamed, at.number)
	}
	at.of = nil
}

func name(all []int, number int) []int {
	if len(all) < numbersKept {
		all = append(all, number)
	}
	return all
}

// clear checks whether a packet without IPsec is the twin of an earlier frame.
func (d *Case) clear(frame []byte, number int) {
	w := d.twins
	if len(w.first) == 0 && d.failing == nil {
		return
	}
	p, ok := account.OwnPacket(frame)
	if !ok || p.Short {
		return
	}
	if at := w.pop(w.print(frame, &p)); at != nil {
		sh := &at.of.shown
		if len(w.paired) < maxStations {
			w.paired[stations(frame)] = true
		}
		if at.failed {
			sh.failed, sh.exact = sh.failed+1, sh.exact+1
			sh.named = name(sh.named, at.number)
		} else {
			sh.pairs++
		}
		at.of = nil
		return
	}
	d.afterFailed(frame, &p, number)
}

// afterFailed checks whether a packet may be the content of the ESP that failed last: of its
// length, between its stations, and right after it.
func (d *Case) afterFailed(frame []byte, p *wire.Packet, number int) {
	s := d.failing
	if s == nil {
		return
	}
	sh := &s.shown
	n := p.Reach - p.Start
	switch {
	case number > sh.pending+nearFailed:
		d.failing = nil
	case n >= sh.least && n <= sh.most && stations(frame) == sh.between:
		sh.failed++
		sh.named = name(sh.named, sh.pending)
		d.failing = nil
	}
}

// pair prepares a tunnel's frame for its twin.
func (d *Case) pair(s *subject, frame []byte, f *account.Frame, rec *status.Record, number int) {
	t := f.Trailer
	if len(frame) < len(s.shown.between) {
		return
	}
	s.shown.between = stations(frame)
	switch {
	case rec.Portion == status.TransportPortion || d.twins.off() || rec != &t.Records[t.N-1] && rec.State == status.ICVValid:
	case rec.State != status.ICVValid && rec != &t.Records[0]: // in a tunnel
	case rec.State == status.ICVValid, rec.Reason == status.AHICV && t.N == 1:
		d.twins.opened(s, frame, f, rec, number)
	case rec.Reason == status.ESPICV && !f.Cut:
		n, block := int(rec.PayloadLen)-2, max(4, s.sa.Suite.Block)
		sh := &s.shown
		sh.pending, sh.least, sh.most = number, n-block+1, n
		d.failing = s
	}
}

// settle ends waiting.
func (w *twins) settle() {
	for i := range w.waiting {
		at := &w.waiting[(w.next+i)%maxWaiting]
		if at.of != nil {
			w.lose(at)
		}
	}
}

// twinless notes what an SA's twins show. If none of its frames has a twin, that is only worth
// a note if others between the same stations have.
func (s *subject) twinless(w *twins) {
	sh := &s.shown
	if sh.without > 0 && w.paired[sh.between] && sh.pairs >= sh.without || sh.pairs == 0 && sh.without >= 2 && w.paired[sh.between] {
		s.add(false, NotShown, "The host that captured shows opened packets once more: those of %d good frames of %s, and not those of %d: frame %s",
			sh.pairs, s.sa.Name, sh.without, numbers(sh.unnamed, sh.without))
	}
	if sh.exact > 0 || sh.failed >= 2 && 2*sh.failed >= s.failed-s.cut {
		s.add(sh.exact == sh.failed, ShownThough, "Behind %d of the %d frames of %s that fail here a packet follows that fits, as a host shows what it has opened: frame %s",
			sh.failed, s.failed, s.sa.Name, numbers(sh.named, sh.failed))
	}
}

// numbers lists some frame numbers out of many.
func numbers(some []int, of int) string {
	var words []string
	for _, n := range some {
		words = append(words, fmt.Sprint(n))
	}
	text := strings.Join(words, ", ")
	if more := of - len(some); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
