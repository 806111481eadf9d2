package outbound

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tapsec/internal/audit"
	"tapsec/sa"
)

// What is not sent is told of like what is not delivered, by reason and SA; no
// flood hides a drop of another kind, and each is told of or counted, once
// (contract, What is logged).
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, events := map[Reason]uint64{}, []Event(nil)
		s := newSender(t, Config{
			SAs:    []*sa.SA{with(web(6), func(a *sa.SA) { a.Name = "six" }), site(4)},
			Policy: []sa.Policy{{Match: sa.Selector{DstPorts: port(1)}, Action: sa.Discard}},
			Audit: func(e Event) {
				events = append(events, e)
				told[e.Reason] += e.Suppressed
				if !e.Silent {
					told[e.Reason]++
				}
			}})
		for range 197 {
			send(s, to("10.0.0.2", 1))
		}
		long := edited(sized(4, 1500), df)
		send(s, long, udp(6, 10), long[:10], to("10.0.0.2", 2))
		if len(events) != audit.PerSA+2 {
			t.Fatalf("events %+v", events)
		}
		last := events[len(events)-2:]
		if last[0].Reason != TooLong || last[0].SA != "site" || last[0].Src != hosts[4][0] || last[0].Dst != hosts[4][1] || time.Since(last[0].Time) != 0 {
			t.Errorf("event %+v", last[0])
		}
		if last[1].Reason != Hidden || last[1].SA != "" || last[1].Src.IsValid() {
			t.Errorf("event %+v", last[1])
		}
		time.Sleep(time.Second)
		s.Tick()
		if told[Discarded] != 197 {
			t.Errorf("once frames stop, what was left out is told: %v", told)
		}
		for range 10 {
			send(s, long)
		}
		if s.Flush(); told[TooLong] != 11 || !strings.Contains(counts(s), "too-long:11") {
			t.Errorf("at the end, likewise: %v", told)
		}
	})
}
