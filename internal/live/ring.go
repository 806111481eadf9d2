package live

import (
	"sync/atomic"

	"tapsec/status"
)

// ring passes copies of frames from one worker to one reader. Neither waits for the other:
// the worker leaves out what does not fit.
type ring struct {
	entries []entry // frame n at n % len
	bytes   []byte  // of the frames, round and round

	// The worker's.
	next, end      uint64 // frame to be added, and where its bytes go
	seen, accepted uint64 // frames
	lost           uint64
	lostBefore     uint64 // since the last one that was added
	latest         *entry // the frame checked last, if it was added

	_         [64]byte
	published struct {
		next                 atomic.Uint64
		seen, accepted, lost atomic.Uint64
	}
	_           [64]byte
	read, freed atomic.Uint64 // frames and bytes that the reader is done with
}

// entry is a frame: its bytes as it came, followed by those as it left.
type entry struct {
	from       uint64
	came, left int // bytes
	lost       uint64
	fate       Fate
	trailer    status.Trailer
}

func newRing(size int) *ring {
	r := &ring{entries: make([]entry, size/average), bytes: make([]byte, size)}
	for i := 0; i < size; i += 4096 {
		r.bytes[i] = 1 // so that no worker waits for the kernel to provide a page
	}
	for i := range r.entries {
		r.entries[i].came = 0
	}
	return r
}

// add copies a frame, to be published.
func (r *ring) add(came, left []byte, t *status.Trailer) {
	r.accepted++
	bytes := uint64(len(came) + len(left))
	if r.next-r.read.Load() == uint64(len(r.entries)) || r.end+bytes-r.freed.Load() > uint64(len(r.bytes)) {
		r.lost++
		r.lostBefore++
		return
	}
	e := &r.entries[r.next%uint64(len(r.entries))]
	e.from, e.came, e.left, e.lost, e.fate, e.trailer = r.end, len(came), len(left), r.lostBefore, Fate{}, *t
	r.latest = e
	r.put(came)
	r.put(left)
	r.next++
	r.lostBefore = 0
}

func (r *ring) put(b []byte) {
	at := r.end % uint64(len(r.bytes))
	n := copy(r.bytes[at:], b)
	copy(r.bytes, b[n:])
	r.end += uint64(len(b))
}

// publish shows the reader what was added.
func (r *ring) publish() {
	p := &r.published
	p.seen.Store(r.seen)
	p.accepted.Store(r.accepted)
	p.lost.Store(r.lost)
	p.next.Store(r.next)
}

// first is the oldest frame not yet taken; nil if there is none.
func (r *ring) first() *entry {
	n := r.read.Load()
	if n == r.published.next.Load() {
		return nil
	}
	return &r.entries[n%uint64(len(r.entries))]
}

// take copies the first frame, and makes room.
func (r *ring) take(to *Pair) {
	e := r.first()
	to.Trailer, to.Fate, to.Lost = e.trailer, e.fate, e.lost
	to.Came = r.get(to.Came[:0], e.from, e.came)
	to.Left = r.get(to.Left[:0], e.from+uint64(e.came), e.left)
	r.freed.Store(e.from + uint64(e.came+e.left))
	r.read.Add(1)
}

func (r *ring) get(to []byte, from uint64, n int) []byte {
	at := int(from % uint64(len(r.bytes)))
	to = append(to, r.bytes[at:min(at+n, len(r.bytes))]...)
	return append(to, r.bytes[:n-len(to)]...)
}
