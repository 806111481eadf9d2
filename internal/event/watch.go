package event

import (
	"log/slog"
	"slices"
	"time"
)

// A storm is stormFrames failed frames within a second; it ends after stormPause
// seconds without as many in any of them.
const (
	stormFrames = 100
	stormPause  = 5
	firsts      = 20 // SAs reported in a second; the others wait
	mostWaiting = 50 * firsts
)

// Failure is what failed of an SA's frames within a second.
type Failure struct {
	SA, Reason string // by name; the reason is the latest frame's
	Frames     uint64
	First      bool // none had failed before
}

// Watch derives events from the counts of failed frames, second by second, so that no
// frame has to report one. However many frames and SAs fail, it reports few.
type Watch struct {
	Tell func(Kind, ...slog.Attr)

	waiting []Failure // first failures not yet reported, mostWaiting at most
	left    uint64    // others that will not be, and that no report has counted yet
	storm   struct {
		on     bool
		began  time.Time
		frames uint64
		quiet  int // seconds
	}
}

// Second is called once a second with what has failed since its last call.
func (w *Watch) Second(now time.Time, failures []Failure) {
	var worst Failure
	var frames uint64
	for _, f := range failures {
		frames += f.Frames
		if f.Frames > worst.Frames {
			worst = f
		}
		switch {
		case !f.First:
		case len(w.waiting) < mostWaiting:
			w.waiting = append(w.waiting, f)
		default:
			w.left++
		}
	}
	told := min(len(w.waiting), firsts)
	for _, f := range w.waiting[:told] {
		w.tell(f)
	}
	w.waiting = slices.Delete(w.waiting, 0, told)
	w.weather(now, worst, frames)
}

// tell reports the first failure of an SA, and how many others are left out for good.
func (w *Watch) tell(f Failure) {
	fields := []slog.Attr{slog.String("sa", f.SA), slog.String("reason", f.Reason), slog.Uint64("frames", f.Frames)}
	if w.left > 0 {
		fields = append(fields, slog.Uint64("suppressed", w.left))
		w.left = 0
	}
	w.Tell(SAFailed, fields...)
}

// weather checks whether a storm begins or ends.
func (w *Watch) weather(now time.Time, worst Failure, frames uint64) {
	s := &w.storm
	switch {
	case frames >= stormFrames && !s.on:
		s.on, s.began, s.frames = true, now, 0
		w.Tell(StormBegan, slog.String("sa", worst.SA), slog.String("reason", worst.Reason), slog.Uint64("frames", frames))
		fallthrough
	case frames >= stormFrames:
		s.quiet = 0
	case s.on:
		s.quiet++
	}
	if !s.on {
		return
	}
	s.frames += frames
	if s.quiet == stormPause {
		s.on = false
		seconds := now.Sub(s.began).Seconds() - stormPause
		w.Tell(StormEnded, slog.Uint64("frames", s.frames), slog.Int64("seconds", max(1, int64(seconds+0.5))))
	}
}
