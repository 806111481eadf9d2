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
	open    int    // parcels of the batch without an answer
	results [Batch]int32
}

// newBurst makes a burst, which the thread that uses it has to enable.
func newBurst() (*burst, error) {
	u, err := newUring(Batch, 2*Batch)
	return &burst{uring: u}, err
}

// put links the writes: each waits for the one before it, and after a failed one no
// other is tried.
func (b *burst) put(fd int, parcels []parcel) (int, error) {
	parcels = parcels[:min(len(parcels), Batch)]
	b.number++
	b.open = len(parcels)
	for i := range parcels {
		b.results[i] = unanswered
		s := b.uring.submit()
		s.write(fd, &parcels[i])
		s.data = tag(ofWrite, 0, b.number, i)
		if i < len(parcels)-1 {
			s.flags = sqeLink
		}
	}
	for began := time.Now(); b.open > 0; {
		if err := b.uring.enter(b.open, heartbeat); err != nil {
			return 0, err
		}
		if err := b.answers(parcels); err != nil {
			return 0, err
		}
		if b.open > 0 && time.Since(began) > lastPatience {
			return 0, fmt.Errorf("io_uring does not answer %d of %d writes", b.open, len(parcels))
		}
	}
	for i := range parcels {
		switch errno := unix.Errno(-b.results[i]); {
		case int(b.results[i]) == parcels[i].length:
		case errno == unix.ECANCELED: // not tried
			return i, unix.EINTR
		default:
			return i, errno
		}
	}
	return len(parcels), nil
}

const unanswered = 1 << 30 // stands in for a result

// answers takes the completions. One that was not asked for ends the burst.
func (b *burst) answers(parcels []parcel) error {
	for c, ok := b.uring.take(); ok; c, ok = b.uring.take() {
		i := int(c.data & 0xffff)
		if i >= len(parcels) || c.data != tag(ofWrite, 0, b.number, i) || b.results[i] != unanswered || c.result >= 0 && int(c.result) != parcels[i].length {
			return fmt.Errorf("io_uring answers %d for an entry that it was not given: %#x", c.result, c.data)
		}
		b.results[i] = c.result
		b.open--
	}
	return nil
}
