package ledger

import (
	"errors"
	"math"
	"time"
)

// Errors of Next.
var (
	ErrUsedUp = errors.New("the sequence numbers are used up")
	ErrLease  = errors.New("the sequence number is beyond those in the state file, and no more can be written there")
)

// Counter gives out the sequence numbers of an outbound SA, each once. Several goroutines
// may use it.
type Counter struct {
	account
	next uint64
}

// Next takes the next number. The error is ErrUsedUp once that would exceed last, which is
// less than 2^64 - 1, or no SA has the counter any more, and ErrLease if the disk cannot be written to first.
func (c *Counter) Next(last uint64) (uint64, error) {
	for {
		n, ok := c.take(last)
		switch {
		case n > last:
			return 0, ErrUsedUp
		case ok:
			return n, nil
		}
		if err := c.keeper.extend(c, n); err != nil {
			return 0, err
		}
	}
}

// take takes the next number if the lease allows that.
func (c *Counter) take(last uint64) (n uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n = c.next; c.left {
		n = math.MaxUint64
	}
	if n > last || !c.covers(n) {
		return n, false
	}
	c.next = n + 1
	spent(c)
	return n, true
}

// Hold tells that a further SA has the counter. Each LeaveCounter takes one Hold back.
func (c *Counter) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders++
}

// Raise makes n the next number, unless the counter is beyond it.
func (c *Counter) Raise(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = max(c.next, n)
	spent(c)
}

// Peek is the number that Next would take.
func (c *Counter) Peek() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

func (c *Counter) used() uint64 { return c.next - 1 }

func (c *Counter) record(now time.Time, _ time.Duration) record {
	r := c.line(now)
	r.Out, r.Next = c.id.String(), c.next
	if upTo, ok := c.promised(c.used()); ok {
		r.Next = sum(upTo, 1)
	}
	return r
}
