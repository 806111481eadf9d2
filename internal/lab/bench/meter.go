package bench

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	lead     = 192  // frames of a round before the clocks are read
	measured = 1024 // frames in between
	tail     = 192  // frames after
	queued   = lead + measured + tail
)

// meter is the first stage of a forwarder. It holds a round's first batch back until all frames wait, and reads
// the clocks after the first frames and before the last ones. So a reading contains neither sleep and wake-up
// nor what the caller does before or after.
type meter struct {
	core      int         // where the worker is to stay; negative: anywhere
	lead, end int         // frames before the first reading, and before the second
	begun     atomic.Bool // set by the caller: the next frame is a round's first
	open      chan struct{}
	done      chan reading

	pinned bool // this and the rest belong to the worker
	seen   int
	first  mark
	over   bool
}

// mark is how far a worker was, and when.
type mark struct {
	frames    int
	cpu, wall time.Duration
}

// reading is what a worker did between two marks.
type reading struct{ from, to mark }

func newMeter() *meter {
	return &meter{core: -1, lead: lead, end: lead + measured, open: make(chan struct{}, 1), done: make(chan reading, 1)}
}

// Batch is nic.Stage.
func (m *meter) Batch(frames [][]byte) [][]byte {
	m.tick(len(frames))
	return frames
}

// tick counts frames that were read but not yet written.
func (m *meter) tick(frames int) {
	if m.begun.Load() {
		m.begin()
	}
	switch {
	case m.over:
	case m.first.wall == 0 && m.seen >= m.lead:
		m.first = m.mark()
	case m.first.wall != 0 && m.seen >= m.end:
		m.over = true
		m.done <- reading{m.first, m.mark()}
	}
	m.seen += frames
}

func (m *meter) begin() {
	if m.core >= 0 && !m.pinned {
		m.pinned = true
		runtime.LockOSThread()
		pin(m.core) // if that fails, the figure shows it
	}
	<-m.open
	m.begun.Store(false)
	m.seen, m.first, m.over = 0, mark{}, false
}

func (m *meter) mark() mark { return mark{m.seen, processTime(), wallTime()} }

// arm makes the next frame the first of a round, which is held back.
func (m *meter) arm() {
	select {
	case <-m.done: // the round was abandoned
	default:
	}
	m.begun.Store(true)
}

// release lets the round continue.
func (m *meter) release() { m.open <- struct{}{} }

// wait waits for the second reading.
func (m *meter) wait() (reading, error) {
	select {
	case r := <-m.done:
		return r, nil
	case <-time.After(settled):
		return reading{}, fmt.Errorf("%w: fewer than %d frames were read", errLoss, m.end)
	}
}

// errLoss says that a frame did not come out, or not as it should.
var errLoss = errors.New("not counted")

// perFrame is the processor's time for a frame in nanoseconds.
func (r reading) perFrame() float64 {
	return float64(r.to.cpu-r.from.cpu) / float64(r.to.frames-r.from.frames)
}

// rate is frames a second.
func (r reading) rate() float64 {
	return float64(r.to.frames-r.from.frames) / (r.to.wall - r.from.wall).Seconds()
}
