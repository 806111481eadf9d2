package audit

import (
	"sync"
	"time"
)

// Changes bounds how often the changes of one state are reported, such as those of an interface that
// goes up and down: PerSA in a second. The state that it came to is always reported, if later, and each
// report says how many changes before it were left out. Several goroutines may use it.
type Changes[State any] struct {
	Report func(now State, suppressed uint64) // called by one goroutine at a time

	mu         sync.Mutex
	since      time.Time // when the current second began
	lines      int       // in it
	now        State
	suppressed uint64 // since the last report
}

// Changed notes a change.
func (c *Changes[State]) Changed(now State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.since) >= time.Second {
		c.since, c.lines = time.Now(), 0
	}
	c.now = now
	if c.lines >= PerSA {
		c.suppressed++
		return
	}
	c.lines++
	c.report(c.suppressed)
}

// Settle reports the state if its last change was left out. It is called once a second, and at the end.
func (c *Changes[State]) Settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.suppressed > 0 {
		c.report(c.suppressed - 1)
	}
}

func (c *Changes[State]) report(suppressed uint64) {
	c.suppressed = 0
	c.Report(c.now, suppressed)
}
