package outbound

import (
	"net/netip"
	"time"

	"tapsec/internal/ledger"
	"tapsec/internal/seal"
	"tapsec/sa"
)

// Event is one line of the audit trail. There is no key and no payload in it.
type Event struct {
	Time     time.Time
	Reason   Reason
	SA       string // name
	Protocol sa.Protocol
	SPI      uint32
	Number   uint64 // the last one
	Src, Dst netip.Addr
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
		if last := seal.LastNumber(a); end.Peek() > last && !s.ended[end] {
			s.ended[end] = true
			if s.config.Audit != nil {
				s.config.Audit(Event{Time: time.Now(), Reason: NumbersUsed, SA: a.Name,
					Protocol: a.Protocol, SPI: a.SPI, Number: last, Src: a.Src, Dst: a.Dst})
			}
		}
	}
}
