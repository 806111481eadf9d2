package pipeline

import (
	"sync/atomic"

	"tapsec/status"
)

// Counters count one pipeline's frames by outcome. The worker counts in plain numbers and
// publishes them once a batch, for any goroutine to read.
type Counters struct {
	codes   [status.NumCodes]uint32 // since the last publish; the worker's alone
	reasons [status.NumReasons]uint32

	_        [64]byte // keeps readers off the worker's cache line
	byCode   [status.NumCodes]atomic.Uint64
	byReason [status.NumReasons]atomic.Uint64
}

// Code is the number of frames with that CryptoStatus. Success includes the frames that
// were left alone.
func (c *Counters) Code(code status.Code) uint64 { return c.byCode[code].Load() }

// Reason is the number of frames that ended with that reason.
func (c *Counters) Reason(r status.Reason) uint64 { return c.byReason[r].Load() }

func (c *Counters) count(t *status.Trailer) {
	c.codes[t.Word.Code()]++
	c.reasons[t.Reason]++
}

func (c *Counters) publish() {
	for i, n := range c.codes {
		if n > 0 {
			c.byCode[i].Add(uint64(n))
			c.codes[i] = 0
		}
	}
	for i, n := range c.reasons {
		if n > 0 {
			c.byReason[i].Add(uint64(n))
			c.reasons[i] = 0
		}
	}
}
