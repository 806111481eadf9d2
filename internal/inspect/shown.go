package inspect

import (
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/sa"
	"tapsec/status"
)

// shown is what an Inspector knows of the SAs of frames that another NIC has annotated.
type shown struct {
	named map[sender]*sa.SA
	met   map[uint32]bool // handles
}

type sender struct {
	spi      uint32
	protocol uint8
}

func newShown(c *configs.Config) *shown {
	s := &shown{named: map[sender]*sa.SA{}, met: map[uint32]bool{}}
	for _, one := range c.SAs {
		s.named[sender{one.SPI, uint8(one.Protocol)}] = one
	}
	return s
}

// meet makes the account follow SAs that this trailer is the first to mention. They have the
// names that the configuration gives them, or else their SPIs.
func (s *shown) meet(to *account.Account, t *status.Trailer) {
	for _, rec := range t.Records[:t.N] {
		if s.met[rec.Handle] {
			continue
		}
		s.met[rec.Handle] = true
		one := s.named[sender{rec.SPI, rec.Protocol}]
		if one == nil {
			one = unnamed(&rec)
		}
		to.Hold([]account.Held{{SA: one, Handle: rec.Handle}})
	}
}
