package transport_test

import (
	"testing"
	"testing/synctest"
	"time"

	"tapsec/internal/audit"
	"tapsec/sa"
	"tapsec/transport"
)

// A flood of one kind hides no event of another, and each drop is reported or
// counted by its reason, once (contract, What is logged).
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		esp := espSA(sa.Transport)
		stranger := espSA(sa.Transport, func(s *sa.SA) { s.SPI = 0xdead })
		h := newHost(t, setup{sas: []*sa.SA{esp}})
		good := framed(once(t, 1, plain4(), esp))
		told := map[transport.Reason]uint64{}
		tell := func() (events int) {
			for _, e := range h.events {
				told[e.Reason] += e.Suppressed
				if !e.Silent {
					told[e.Reason]++
				}
			}
			events, h.events = len(h.events), nil
			return events
		}
		h.delivers(good, framed(plain4()))
		for n := range uint64(197) {
			h.drops(framed(once(t, n+1, plain4(), stranger)), transport.NoSA)
		}
		h.drops(flipped(framed(once(t, 2, plain4(), esp))), icv)
		h.drops(good, replay)
		if tell() != audit.PerSA+2 || told[icv] != 1 || told[replay] != 1 || told[transport.NoSA] != audit.PerSA {
			t.Errorf("events %v", told)
		}
		h.Tick(h.now.UnixNano())
		if tell() != 0 {
			t.Error("more events in the same second")
		}
		time.Sleep(time.Second)
		h.Tick(h.now.UnixNano())
		if tell() != 1 || told[transport.NoSA] != 197 {
			t.Errorf("once frames stop, what was left out is told: %v", told)
		}
		for range 100 {
			h.drops(flipped(framed(once(t, 2, plain4(), esp))), icv)
		}
		if h.Flush(); tell() != audit.PerSA+1 || told[icv] != 101 {
			t.Errorf("at the end, likewise: %v", told)
		}
	})
}

// An event's time is its frame's. Without a trailer there is none, and none is
// made up.
func TestEventTime(t *testing.T) {
	h := newHost(t, setup{sas: []*sa.SA{espSA(sa.Transport)}})
	h.drops(flipped(framed(once(t, 1, plain4(), espSA(sa.Transport)))), icv)
	h.dropped(make([]byte, 60), transport.NoAnnotation)
	if len(h.events) != 2 || !h.events[0].Time.Equal(h.now) || !h.events[1].Time.IsZero() {
		t.Errorf("events %+v", h.events)
	}
}
