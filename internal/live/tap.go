// Package live shows the frames of a running NIC to whoever asks, each as it came and as it
// is delivered, with its verdict: as a capture (Capture) or explained (Trace).
//
// A worker copies frames into a Reader's memory and continues; it waits for nobody. What does
// not fit is lost to that Reader and counted. While nobody reads, a batch costs a worker one
// look at a pointer. The reading goroutine does everything else.
package live

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tapsec/pipeline"
	"tapsec/status"
)

// Memory for what a Reader has not read yet, all queues together.
const (
	memory  = 8 << 20 // bytes of frames
	minimum = 1 << 19 // of one queue, several of the longest frames
	average = 1 << 10 // bytes of a frame as it came and as it left together, which bounds the number of frames
)

// Tap is where readers get a NIC's frames. Several goroutines may use it.
type Tap struct {
	queues  int
	readers atomic.Pointer[[]*Reader] // nil: nobody reads

	mu          sync.Mutex
	taken, lost uint64 // frames, of closed readers
}

// New makes the tap of a NIC with that many queues.
func New(queues int) *Tap { return &Tap{queues: queues} }

// Stage makes a queue's pipeline a stage whose frames are shown.
func (t *Tap) Stage(queue int, p *pipeline.Pipeline) *Stage {
	return &Stage{tap: t, queue: queue, pipeline: p}
}

// Stage is a stage of the NIC: a pipeline, and readers who see its frames. It belongs to the
// pipeline's worker.
type Stage struct {
	tap      *Tap
	queue    int
	pipeline *pipeline.Pipeline

	readers []*Reader // of the current batch
	came    []byte    // the current frame as it was received
}

// Batch is Batch of the pipeline.
func (s *Stage) Batch(frames [][]byte) [][]byte {
	if !s.Begin() {
		return s.pipeline.Batch(frames)
	}
	s.pipeline.At(time.Now())
	for i, f := range frames {
		frames[i] = s.pipeline.Deliver(s.Check(f))
	}
	s.pipeline.Publish()
	s.End()
	return frames
}

// Begin comes before the frames of a batch, and reports whether anybody reads. If so, each
// frame must go through Check, and End must follow.
func (s *Stage) Begin() bool {
	readers := s.tap.readers.Load()
	if readers == nil {
		return false
	}
	s.readers = *readers
	return true
}

// Check is Check of the pipeline, and gives the frame to those who want it.
func (s *Stage) Check(frame []byte) ([]byte, *status.Trailer) {
	s.came = append(s.came[:0], frame...)
	left, t := s.pipeline.Check(frame)
	for _, r := range s.readers {
		ring := r.rings[s.queue]
		ring.seen++
		ring.latest = nil
		if r.wants(t) {
			ring.add(s.came, left, t)
		}
	}
	return left, t
}

// Fate is what became of a frame behind the NIC, as a number of whoever says so. The zero
// Fate means unknown.
type Fate struct{ Verdict, Reason uint8 }

// Judged says what became of the last frame checked.
func (s *Stage) Judged(f Fate) {
	for _, r := range s.readers {
		if e := r.rings[s.queue].latest; e != nil {
			e.fate = f
		}
	}
}

// End shows readers the frames that they were given.
func (s *Stage) End() {
	for _, r := range s.readers {
		r.rings[s.queue].publish()
		r.wake()
	}
}

// Open begins to read, from now on, the frames that wants lets through. wants is called on
// the frame path.
func (t *Tap) Open(wants func(*status.Trailer) bool) *Reader {
	r := &Reader{tap: t, wants: wants, woken: make(chan struct{}, 1)}
	for range t.queues {
		r.rings = append(r.rings, newRing(max(memory/t.queues, minimum)))
	}
	t.change(func(all []*Reader) []*Reader { return append(all, r) })
	return r
}

// change replaces the list of readers.
func (t *Tap) change(f func([]*Reader) []*Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Reader
	if now := t.readers.Load(); now != nil {
		all = slices.Clone(*now)
	}
	if all = f(all); len(all) == 0 {
		t.readers.Store(nil)
		return
	}
	t.readers.Store(&all)
}

// Counts are the counts of all readers so far: how many there are, and the frames that they
// took and lost.
func (t *Tap) Counts() (readers int, taken, lost uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken, lost = t.taken, t.lost
	if now := t.readers.Load(); now != nil {
		readers = len(*now)
		for _, r := range *now {
			c := r.Counts()
			taken, lost = taken+c.Accepted-c.Lost, lost+c.Lost
		}
	}
	return readers, taken, lost
}
