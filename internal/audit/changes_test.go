package audit

import (
	"testing"
	"testing/synctest"
	"time"
)

// However often a state changes, few of the changes are reported, all are counted, and the last one is
// told (contract, What is logged).
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, changes, last := 0, uint64(0), -1
		c := Changes[int]{Report: func(now int, suppressed uint64) {
			lines++
			changes += suppressed + 1
			last = now
		}}
		made := uint64(0)
		change := func(now int) {
			c.Changed(now)
			made++
		}
		c.Settle()
		if lines != 0 {
			t.Error("a state that has not changed was reported")
		}
		const seconds, each = 3, 1000
		for range seconds {
			for n := range each {
				change(n % 2)
			}
			time.Sleep(time.Second)
			c.Settle()
			if last != 1 || changes != made {
				t.Errorf("the state is told to be %d after %d changes of %d", last, changes, made)
			}
		}
		if lines != seconds*(PerSA+1) {
			t.Errorf("%d lines in %d seconds", lines, seconds)
		}
		c.Settle()
		change(0)
		if last != 0 || changes != made || lines != seconds*(PerSA+1)+1 {
			t.Errorf("a change in quiet times: %d, %d of %d", last, changes, made)
		}
	})
}
