package outbound

import (
	"net/netip"
	"time"

	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// Event is one line of the audit trail: a frame that was dropped, an SA whose numbers are
// used up, or one whose path is narrower than the wire. It holds no key and no payload.
// What is unknown is zero.
type Event struct {
	Time     time.Time
	Reason   Reason
	SA       string      // name, or all names of a stack, innermost first
	Protocol sa.Protocol // with NumbersUsed and Narrowed only, like SPI and Number
	SPI      uint32
	Number   uint64     // the last one; with Narrowed the low half of the reported packet's
	Src, Dst netip.Addr // of the packet; with NumbersUsed and Narrowed of the SA
	Router   netip.Addr // with Narrowed: who said so
	MTU      int        // with Narrowed: in bytes
	FlowID   uint32     // IPv6 flow label

	// Events for the Reason that were left out since the last one, to bound the rate.
	// With Silent this is only their number, and not an event itself.
	Suppressed uint64
	Silent     bool
}

// drop audits a frame that is not sent, unless its SA's numbers are used up, which has been
// reported.
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

// Tick is to be called once a second. It forgets old reports of routers, and tells Audit of
// events left out.
func (s *Sender) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agePaths()
	s.tell(false)
}

// Flush tells Audit the number of all events left out so far.
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

// audit reports, once for each SA, that its numbers are used up, an auditable event (RFC
// 4303 section 3.3.3).
func (s *Sender) audit(r *route) {
	for _, a := range r.sas {
		end := end{a.counter, a.ID()}
		if last := lastNumber(a.SA); end.Peek() > last && !s.ended[end] {
			s.ended[end] = true
			if s.config.Audit != nil {
				s.config.Audit(Event{Time: time.Now(), Reason: NumbersUsed, SA: a.Name,
					Protocol: a.Protocol, SPI: a.SPI, Number: last, Src: a.Src, Dst: a.Dst})
			}
		}
	}
}
