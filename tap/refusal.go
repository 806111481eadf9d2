package tap

import (
	"cmp"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause   = 50 * time.Microsecond // before a refused frame is tried again, doubled each time
	longestPause = 5 * time.Millisecond

	longestPatience = 200 * time.Millisecond // with a frame that an attached interface refuses
	leastPatience   = time.Millisecond
)

// refusal decides what to do with the first frame in line after it was refused.
//
// A TAP refuses frames while its send buffer is full or memory is short, and a packet socket returns
// EAGAIN while its own buffer is full: that passes, so the frame waits. A packet socket's ENOBUFS means
// that the interface's queue or a filter threw the frame away. A full queue passes, too; a filter that
// wants no such frame, or a token bucket smaller than it, does not, and only time tells which it was. So a
// frame is given up after longestPatience of refusals during which nothing of ours was in the interface's
// queue to make room for it.
//
// Each frame given up halves the patience with the next one, since where one is refused for good there are
// more of its kind. A frame that is taken after a refusal shows that the interface was busy, and restores
// the patience.
type refusal struct {
	pause    time.Duration // before the next try; zero if nothing was refused
	until    time.Time     // time of the next try
	since    time.Time     // since when only the interface itself is in the way; zero if anything else is
	patience time.Duration // zero is longestPatience
}

// again makes the frame wait, longer with each refusal in a row, and reports whether it is to be given up
// instead.
func (r *refusal) again(errno error, d *Device, fd int) (giveUp bool) {
	now := time.Now()
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	r.until = now.Add(r.pause)
	r.patience = cmp.Or(r.patience, longestPatience)
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

// over notes that the first frame in line has been dealt with.
func (r *refusal) over() {
	if r.pause > 0 {
		*r = refusal{}
	}
}

// left returns the time until the frame is tried again.
func (r *refusal) left() time.Duration {
	if r.pause == 0 {
		return 0
	}
	return max(time.Until(r.until), 0)
}

// outstanding reports whether frames written to a packet socket have not left yet.
func outstanding(fd int) bool {
	bytes, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err == nil && bytes > 0
}

// refused reports whether the error may pass.
func refused(err error) bool {
	return err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.ENOMEM
}
