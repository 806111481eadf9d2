package inspect

import (
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// sender is what frames that another NIC has annotated tell of an SA.
type sender struct {
	spi      uint32
	protocol uint8
}

// sendersOf are the SAs of a configuration by what such frames tell of them.
func sendersOf(c *configs.Config) map[sender]*sa.SA {
	named := map[sender]*sa.SA{}
	for _, one := range c.SAs {
		named[sender{one.SPI, uint8(one.Protocol)}] = one
	}
	return named
}

// meet makes an account follow SAs that a trailer is the first to mention. One that nobody knows
// is called by its SPI.
func meet(to *account.Account, t *status.Trailer, known func(*status.Record) *sa.SA) {
	for i := range t.Records[:t.N] {
		rec := &t.Records[i]
		if to.Name(rec.Handle) != "" {
			continue
		}
		one := known(rec)
		if one == nil {
			one = &sa.SA{Name: sa.SPI(rec.SPI).String(), SPI: rec.SPI, Protocol: sa.Protocol(rec.Protocol), ReplayOff: true}
		}
		to.Hold([]pipeline.Holding{{SA: one, Handle: rec.Handle}})
	}
}
