package outbound

import (
	"net/netip"
	"time"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// Event is one line of the audit trail: a frame that was dropped, an SA whose
// numbers are used up, or one whose path is narrower than the wire. There is no key
// and no payload in it. What is unknown is zero.
type Event struct {
	Time     time.Time
	Reason   Reason
	SA       string      // name; of several for one packet all, innermost first
	Protocol sa.Protocol // NumbersUsed and Narrowed alone, as SPI and Number
	SPI      uint32
	Number   uint64     // the last one; for Narrowed that of the packet reported, its low half
	Src, Dst netip.Addr // of the packet; for NumbersUsed and Narrowed of the SA
	Router   netip.Addr // Narrowed alone: who says so
	MTU      int        // likewise, in bytes
	FlowID   uint32     // IPv6 flow label

	// Events for the Reason left out before this one, to bound the rate. With
	// Silent this is no event of its own: it tells of those after the last one.
	Suppressed uint64
	Silent     bool
}

// drop audits a frame that is not sent. That an SA has no numbers left was said
// when it was so.
func (s *Sender) drop(frame []byte, reason Reason) {
	if s.config.Audit == nil || reason == NumbersUsed {
		return
	}
	suppressed, ok := s.limit.Allow(uint8(reason), s.by)
	if !ok {
		return
	}
	e := Event{Time: time.Now(), Reason: reason, SA: s.by, Suppressed: suppressed}
	if _, l3, ok := wire.Ethernet(frame); ok {
		if p, ok := wire.Addresses(frame, l3); ok {
			e.Src, e.Dst = p.Src, p.Dst
			if p.Version == 6 {
				e.FlowID = be.Uint32(frame[p.Start:]) & 0xfffff
			}
		}
	}
	s.config.Audit(e)
}

// Tick forgets what routers said too long ago, and tells Audit of events left out,
// of which nothing else tells. It wants to be called once a second.
func (s *Sender) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agePaths()
	s.tell(false)
}

// Flush tells Audit of all events that were left out so far and not told of.
func (s *Sender) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(true)
}

func (s *Sender) tell(all bool) {
	if s.config.Audit == nil {
		return
	}
	s.limit.Silent(all, func(reason uint8, n uint64) {
		s.config.Audit(Event{Time: time.Now(), Reason: Reason(reason), Suppressed: n, Silent: true})
	})
}

// end is an SA, with its key, whose numbers are used up.
type end struct {
	*ledger.Counter
	sa.ID
}

// audit says once of each SA that its numbers are used up, which RFC 4303 section
// 3.3.3 calls auditable.
func (s *Sender) audit(r *route) {
	for _, i := range r.places {
		a := s.sas.all[i]
		end := end{s.sas.counters[i], a.ID()}
		if last := lastNumber(a); end.Peek() > last && !s.ended[end] {
			s.ended[end] = true
			if s.config.Audit != nil {
				s.config.Audit(Event{Time: time.Now(), Reason: NumbersUsed, SA: a.Name,
					Protocol: a.Protocol, SPI: a.SPI, Number: last, Src: a.Src, Dst: a.Dst})
			}
		}
	}
}
