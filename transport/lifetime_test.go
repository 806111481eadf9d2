package transport_test

import (
	"fmt"
	"testing"
	"time"

	"tapsec/sa"
	"tapsec/transport"
)

// noticed are the reasons of the events so far, which it forgets.
func (h *host) noticed() (all []transport.Reason) {
	for _, e := range h.events {
		all = append(all, e.Reason)
	}
	h.events = nil
	return all
}

func (h *host) notices(want ...transport.Reason) {
	h.tb.Helper()
	got := h.noticed()
	if len(got) != len(want) {
		h.tb.Errorf("events %v, want %v", got, want)
		return
	}
	for i := range want {
		if got[i] != want[i] {
			h.tb.Errorf("events %v, want %v", got, want)
			return
		}
	}
}

// Contract, The transport, step 5: soft and hard lifetimes count what is fresh: a replay or a forged
// frame costs nothing. The soft one is said once, behind the hard one nothing
// is delivered.
func TestLifetime(t *testing.T) {
	const payload = 8 + 43 // UDP and message: what one packet carries
	for name, lifetimes := range map[string]sa.Lifetimes{
		"packets": {Soft: sa.Limit{Packets: 2}, Hard: sa.Limit{Packets: 4}},
		"bytes":   {Soft: sa.Limit{Bytes: 2*payload + 1}, Hard: sa.Limit{Bytes: 4 * payload}},
	} {
		t.Run(name, func(t *testing.T) {
			esp := espSA(sa.Transport, func(s *sa.SA) { s.Lifetimes = lifetimes })
			both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
				frame := func(n uint64) []byte { return framed(once(t, n, plain4(), esp)) }
				h.delivers(frame(1), framed(plain4()))
				for range 3 {
					h.drops(frame(1), replay)
					h.drops(flipped(frame(9)), icv)
				}
				h.noticed()
				h.delivers(frame(2), framed(plain4()))
				h.notices()
				h.delivers(frame(3), framed(plain4()))
				h.notices(transport.SoftExpired)
				h.delivers(frame(4), framed(plain4()))
				h.notices()
				h.drops(frame(5), transport.Expired)
				h.notices(transport.Expired, transport.Expired) // the SA's end, and the frame's drop
				h.drops(frame(5), replay)                       // its number has gone to the window
				h.drops(frame(6), transport.Expired)
				h.notices(replay, transport.Expired)
			})
		})
	}
}

// One packet is the least that a lifetime may be.
func TestLifetimeOfOne(t *testing.T) {
	for _, lifetime := range []sa.Limit{{Packets: 1}, {Bytes: 1}} {
		esp := espSA(sa.Transport, func(s *sa.SA) { s.Lifetimes.Hard = lifetime })
		h := newHost(t, setup{sas: []*sa.SA{esp}})
		if lifetime.Packets == 1 {
			h.delivers(framed(once(t, 1, plain4(), esp)), framed(plain4()))
		}
		h.drops(framed(once(t, 2, plain4(), esp)), transport.Expired)
	}
}

// Lifetimes in time end when a frame comes, or at a tick.
func TestLifetimeTime(t *testing.T) {
	lifetimes := sa.Lifetimes{Soft: sa.Limit{Time: time.Minute}, Hard: sa.Limit{Time: time.Hour}}
	esp := espSA(sa.Transport, func(s *sa.SA) { s.Lifetimes = lifetimes })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		frame := func(n uint64, after time.Duration) []byte {
			h.now = began.Add(after)
			return framed(once(t, n, plain4(), esp))
		}
		h.delivers(frame(1, time.Minute-1), framed(plain4()))
		h.notices()
		h.delivers(frame(2, time.Minute), framed(plain4()))
		h.notices(transport.SoftExpired)
		h.tick(time.Hour - 1)
		h.notices()
		h.delivers(frame(3, time.Hour-1), framed(plain4()))
		h.tick(time.Hour)
		h.notices(transport.Expired)
		h.drops(frame(4, time.Hour), transport.Expired)
	})
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	h.tick(time.Minute)
	h.notices(transport.SoftExpired)
	h.tick(2 * time.Minute)
	h.notices()
	h = newHost(t, setup{sas: []*sa.SA{esp}})
	h.tick(time.Hour) // when both are over, the soft one is no news
	h.tick(time.Hour)
	h.notices(transport.Expired)
}

// tick passes time without a frame.
func (h *host) tick(after time.Duration) {
	h.now = began.Add(after)
	h.Tick(h.now.UnixNano())
}

// Lifetimes run on a clock that nobody sets (contract, The transport, step 5): the
// NIC's time of day may jump, and what has ended stays at its end.
func TestLifetimeClock(t *testing.T) {
	esp := espSA(sa.Transport, func(s *sa.SA) { s.Lifetimes.Hard.Time = 8 * time.Hour })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		frame := func(n uint64, after, set time.Duration) []byte {
			h.now, h.set = began.Add(after), set
			return framed(once(t, n, plain4(), esp))
		}
		const day = 24 * time.Hour
		h.delivers(frame(1, time.Hour, 0), framed(plain4()))
		h.delivers(frame(2, time.Hour, day), framed(plain4()))
		h.delivers(frame(3, time.Hour, 0), framed(plain4()))
		h.drops(frame(4, 8*time.Hour, -day), transport.Expired)
		h.notices(transport.Expired, transport.Expired)
		h.drops(frame(5, time.Hour, 0), transport.Expired)
		longer := *esp
		longer.Lifetimes.Hard.Time = 100 * time.Hour
		h.replace(&longer)
		h.drops(frame(6, time.Hour, 0), transport.Expired)
	})
}

// What is said of an SA without a frame has the time of day, though that was set back since the last frame.
func TestLifetimeSetBack(t *testing.T) {
	esp := espSA(sa.Transport, func(s *sa.SA) { s.Lifetimes.Hard.Time = 8 * time.Hour })
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	h.now = began.Add(7 * time.Hour)
	h.delivers(framed(once(t, 1, plain4(), esp)), framed(plain4()))
	h.now = began.Add(8 * time.Hour)
	back := h.now.Add(-24 * time.Hour)
	h.Tick(back.UnixNano())
	if len(h.events) != 1 || h.events[0].Reason != transport.Expired || !h.events[0].Time.Equal(back) {
		t.Errorf("events %+v", h.events)
	}
}

// A tunnel at its end ends the frame, but the number inside still counts.
func TestLifetimeNested(t *testing.T) {
	esp, tun := espSA(sa.Transport), espSA(sa.Tunnel, func(s *sa.SA) { s.Lifetimes.Hard.Packets = 1 })
	both(t, setup{sas: []*sa.SA{esp, tun}}, func(t *testing.T, h *host) {
		h.delivers(framed(once(t, 1, plain4(), esp, tun)), framed(plain4()))
		h.drops(framed(once(t, 2, plain4(), esp, tun)), transport.Expired)
		if h.window(esp.Name).Seen != 2 {
			t.Error("the inner number was forgotten")
		}
	})
}

// A tick looks at the SAs that have a lifetime, and at no others, however many there are: it
// does not even list them. A reload may give a lifetime, or take it.
func TestTickOfManySAs(t *testing.T) {
	mortal := espSA(sa.Transport, func(s *sa.SA) { s.SPI, s.Name = 1<<20, "mortal" })
	sas := []*sa.SA{mortal}
	for i := range uint32(1000) {
		sas = append(sas, espSA(sa.Transport, func(s *sa.SA) { s.SPI, s.Name = 1<<16+i, fmt.Sprint("sa", i) }))
	}
	h := newHost(t, setup{sas: sas})
	if n := testing.AllocsPerRun(10, func() { h.tick(time.Minute) }); n > 0 {
		t.Errorf("a tick of SAs without lifetimes allocates %v times", n)
	}
	limited := *mortal
	limited.Lifetimes.Soft.Time = time.Hour
	sas[0] = &limited
	h.replace(sas...)
	sas[0] = mortal
	h.replace(sas...)
	h.tick(time.Hour)
	h.notices()
	limited.Lifetimes.Soft.Time = 2 * time.Hour
	sas[0] = &limited
	h.replace(sas...)
	h.tick(2 * time.Hour)
	h.notices(transport.SoftExpired)
}
