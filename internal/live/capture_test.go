package live

import (
	"bytes"
	"testing"
	"time"

	"tapsec/capture"
	"tapsec/status"
)

// Counts come once a second, also where the time of day was set back by hours meanwhile.
func TestCountsAfterClockSetBack(t *testing.T) {
	r := New(1).Open(func(*status.Trailer) bool { return true })
	defer r.Close()
	var out bytes.Buffer
	file, err := capture.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := capturing{viewing: &viewing{reader: r}, file: file}
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second / 2, false}, {time.Second, true}, {-3 * time.Hour, true}, {time.Second/2 - 3*time.Hour, false},
		{time.Second - 3*time.Hour, true}} {
		r.rings[0].published.seen.Add(1)
		before := out.Len()
		if err := c.count(at.Add(step.after).UnixNano()); err != nil {
			t.Fatal(err)
		}
		if (out.Len() > before) != step.want {
			t.Errorf("%d: %d bytes", i, out.Len()-before)
		}
	}
}
