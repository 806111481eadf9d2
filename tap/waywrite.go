package tap

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queueWrites has up to a batch of frames written, and returns how many batches are under way.
//
// Where the receiver may refuse a frame each entry waits for the one before it, and none behind one
// that failed is carried out: no frame is written before another that was refused. That takes the
// kernel an eighth longer, so a TAP whose send buffer nobody has limited is spared it: it takes every
// frame, while there is memory. All is silent but failures and the last success.
func (w *way) queueWrites() int {
	if len(w.rest) == 0 || w.pausing() > 0 {
		return 0
	}
	if w.writing > 0 {
		return 1
	}
	w.writing = min(len(w.rest), w.stride)
	w.linked = w.writing > 1 && w.limited()
	flags := uint8(sqeSkipIfSuccess)
	if w.linked {
		flags |= sqeLink
	}
	for i, f := range w.rest[:w.writing] {
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opWrite, int32(w.out), unix.RWF_NOWAIT, tag(ofWrite, w.index, i)
		s.address, s.length = addressOf(f), uint32(len(f))
		if i < w.writing-1 {
			s.flags = flags
		}
	}
	return 1
}

// mayRefuse asks the kernel, as anyone who holds the TAP may limit its send buffer at any time. A
// packet socket may always refuse.
func (w *way) mayRefuse() bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.out), unix.TUNGETSNDBUF, uintptr(unsafe.Pointer(&w.limit)))
	return errno != 0 || w.limit != math.MaxInt32
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
	if !w.linked {
		return w.haveWrittenOne(c, index)
	}
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

// haveWrittenOne does the same for entries that did not wait for each other: each failure is told, and
// then what became of the last one. A frame that was refused after all is written once more, behind its
// batch.
func (w *way) haveWrittenOne(c completion, index int) (failure error) {
	if errno := unix.Errno(-c.result); c.result < 0 {
		if refused(errno) || errno == unix.EINTR {
			w.again = append(w.again, w.rest[index])
		} else {
			w.lost++
			failure = w.lose(errno)
		}
		w.rest[index] = nil
	}
	if index < w.writing-1 {
		return failure
	}
	t, done := &w.link.tally, w.writing-len(w.again)
	for _, f := range w.rest[:w.writing] {
		t.OutBytes += uint64(len(f))
	}
	t.Out += uint64(done - w.lost)
	copy(w.rest[done:], w.again)
	w.rest, w.writing, w.lost, w.stride = w.rest[done:], 0, 0, min(2*w.stride, Batch)
	if done > 0 {
		w.pause = 0
	}
	if len(w.again) > 0 {
		w.again = w.again[:0]
		w.refused()
	}
	return failure
}

// haveNotWritten decides what becomes of the first frame that is still to be written.
func (w *way) haveNotWritten(errno unix.Errno) error {
	w.stride = 1
	if refused(errno) || errno == unix.EINTR {
		w.refused()
		return nil
	}
	w.rest, w.pause = w.rest[1:], 0
	return w.lose(errno)
}

// refused has a frame wait, longer the more often it was refused in a row.
func (w *way) refused() {
	w.link.tally.Retries++
	w.pause = min(max(2*w.pause, firstPause), longestPause)
	w.until = time.Now().Add(w.pause)
}

// lose counts a frame that will never be written; the error says that no other will.
func (w *way) lose(errno unix.Errno) error {
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
