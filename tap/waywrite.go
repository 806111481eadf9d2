package tap

import (
	"time"

	"golang.org/x/sys/unix"
)

// queueWrites has up to a batch of frames written, and returns how many batches are under way. Each
// entry waits for the one before it, and none behind one that failed is carried out: no frame is
// written before another that was refused. All is silent but the first failure, or the last success.
func (w *way) queueWrites() int {
	if len(w.rest) == 0 || w.pausing() > 0 {
		return 0
	}
	if w.writing > 0 {
		return 1
	}
	w.writing = min(len(w.rest), w.stride)
	for i, f := range w.rest[:w.writing] {
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opWrite, int32(w.out), unix.RWF_NOWAIT, tag(ofWrite, w.index, i)
		s.address, s.length = addressOf(f), uint32(len(f))
		if i < w.writing-1 {
			s.flags = sqeLink | sqeSkipIfSuccess
		}
	}
	return 1
}

// pausing returns how long it still is until what was refused is tried again.
func (w *way) pausing() time.Duration {
	if w.pause == 0 {
		return 0
	}
	return max(time.Until(w.until), 0)
}

// haveWritten takes what there is to be told of a batch: that the frame at index was the last one and
// was written, or that it was not. All before it were; those behind it are written next, fewer at once,
// for the next one may fail too.
func (w *way) haveWritten(c completion, index int) error {
	t, done := &w.link.tally, index+1
	if c.result < 0 {
		done = index
	}
	for _, f := range w.rest[:done] {
		t.OutBytes += uint64(len(f))
	}
	t.Out += uint64(done)
	w.rest, w.writing = w.rest[done:], 0
	if done > 0 {
		w.pause = 0
	}
	if c.result >= 0 {
		w.stride = min(2*w.stride, Batch)
		return nil
	}
	return w.haveNotWritten(unix.Errno(-c.result))
}

// haveNotWritten decides what becomes of the first frame that is still to be written.
func (w *way) haveNotWritten(errno unix.Errno) error {
	w.stride = 1
	if refused(errno) || errno == unix.EINTR {
		w.link.tally.Retries++
		w.pause = min(max(2*w.pause, firstPause), longestPause)
		w.until = time.Now().Add(w.pause)
		return nil
	}
	w.rest, w.pause = w.rest[1:], 0
	if w.link.lose(errno) {
		return nil
	}
	w.link.tally.HostDown++
	w.dead = true
	return w.link.to.failed("write to", errno)
}

// giveUp counts what will not be written.
func (w *way) giveUp() {
	w.link.tally.HostDown += uint64(len(w.rest) + w.filled)
	w.rest, w.filled = nil, 0
}

// end gives up what cannot be written, or is refused just now, and tells whether nothing is left.
func (w *way) end() bool {
	if w.writing == 0 && (w.dead || w.pause > 0) {
		w.giveUp()
	}
	return w.reads == 0 && !w.polling && w.filled == 0 && len(w.rest) == 0
}

// remains tells whether both interfaces are there, and their devices open.
func (w *way) remains() error {
	if err := w.link.from.remains(w.link.source); err != nil {
		return err
	}
	return w.link.to.remains(w.link.target)
}
