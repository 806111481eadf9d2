package tap

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause   = 50 * time.Microsecond // before a refused frame is tried again; doubled each time that it is
	longestPause = 5 * time.Millisecond

	longestPatience = 200 * time.Millisecond // with a frame that an attached interface refuses
	leastPatience   = time.Millisecond
)

// refusal is how a direction goes on with the frame that is first in line and was refused.
//
// A TAP refuses frames while its send buffer is full or memory is short, and a packet socket answers
// EAGAIN while its own buffer is full: all that passes, and is waited for. A packet socket's ENOBUFS
// says that the interface's queue or a filter threw the frame away. A queue that is full passes too; a
// filter that wants no such frame, or a token bucket smaller than it, does not, and only time tells
// them apart. So a frame is given up that was refused for longestPatience without a break, in which
// nothing of ours lay in the interface's queue to make room for it.
//
// Each frame given up halves the time that the next one has, for where one kind of frame is refused
// for good there are more; one that is taken after it was refused shows a busy interface, and gives
// all of it back.
type refusal struct {
	pause    time.Duration // before the next try; zero where nothing was refused
	until    time.Time     // when that is
	since    time.Time     // since when nothing but the interface itself stands in the way; zero where something does
	patience time.Duration // zero stands for the longest
}

// again has the frame wait, longer the more often it was refused in a row, and reports whether it is
// to be given up instead.
func (r *refusal) again(errno error, d *Device, fd int) (giveUp bool) {
	now := time.Now()
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	r.until = now.Add(r.pause)
	if r.patience == 0 {
		r.patience = longestPatience
	}
	switch {
	case !d.attached() || errno != unix.ENOBUFS || outstanding(fd):
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = now
	case now.Sub(r.since) >= r.patience:
		r.pause, r.since = 0, time.Time{}
		r.patience = max(r.patience/2, leastPatience)
		return true
	}
	return false
}

// over notes that the frame first in line is dealt with.
func (r *refusal) over() {
	if r.pause > 0 {
		*r = refusal{}
	}
}

// left returns how long it still is until the frame is tried again.
func (r *refusal) left() time.Duration {
	if r.pause == 0 {
		return 0
	}
	return max(time.Until(r.until), 0)
}

// outstanding reports whether frames that were written to a packet socket have not left yet.
func outstanding(fd int) bool {
	bytes, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err == nil && bytes > 0
}

// refused reports whether a frame may be taken a moment later.
func refused(err error) bool {
	return err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.ENOMEM
}
