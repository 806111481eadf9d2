package tap

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// burst writes a batch to a TAP with one call, by an io_uring of its own.
type burst struct {
	uring   *uring
	number  uint32 // of the batch
	open    int    // frames of the batch without an answer
	results [Batch]int32
}

// newBurst makes a burst, which the thread that uses it has to enable.
func newBurst() (*burst, error) {
	u, err := newUring(Batch, 2*Batch)
	return &burst{uring: u}, err
}

// put makes each write wait for the one before it. After one that failed none is tried.
func (b *burst) put(fd int, frames [][]byte) (int, error) {
	frames = frames[:min(len(frames), Batch)]
	b.number++
	b.open = len(frames)
	for i, f := range frames {
		b.results[i] = unanswered
		s := b.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opWrite, int32(fd), unix.RWF_NOWAIT, tag(ofWrite, 0, b.number, i)
		s.address, s.length = addressOf(f), uint32(len(f))
		if i < len(frames)-1 {
			s.flags = sqeLink
		}
	}
	for began := time.Now(); b.open > 0; {
		if err := b.uring.enter(b.open, heartbeat); err != nil {
			return 0, err
		}
		if err := b.answers(frames); err != nil {
			return 0, err
		}
		if b.open > 0 && time.Since(began) > lastPatience {
			return 0, fmt.Errorf("io_uring does not answer %d of %d writes", b.open, len(frames))
		}
	}
	for i, f := range frames {
		switch errno := unix.Errno(-b.results[i]); {
		case int(b.results[i]) == len(f):
		case errno == unix.ECANCELED: // not tried
			return i, unix.EINTR
		default:
			return i, errno
		}
	}
	return len(frames), nil
}

const unanswered = 1 << 30 // in the place of a result

// answers takes the completions. One that was not asked for ends the burst.
func (b *burst) answers(frames [][]byte) error {
	for c, ok := b.uring.take(); ok; c, ok = b.uring.take() {
		i := int(c.data & 0xffff)
		if i >= len(frames) || c.data != tag(ofWrite, 0, b.number, i) || b.results[i] != unanswered || c.result >= 0 && int(c.result) != len(frames[i]) {
			return fmt.Errorf("io_uring answers %d for an entry that it was not given: %#x", c.result, c.data)
		}
		b.results[i] = c.result
		b.open--
	}
	return nil
}
