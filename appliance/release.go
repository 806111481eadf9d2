//go:build linux

package appliance

import (
	"fmt"
	"log/slog"

	"tapsec/internal/event"
	"tapsec/sa"
)

// takeBack does what NDIS asks of a transport when a NIC wants an inbound SA deleted: it
// deletes the offloaded SA, then the outbound SA that belongs to it. The transport keeps
// both.
func (a *Appliance) takeBack(s *sa.SA) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.adapter.release(s) {
		a.tell(event.SADeleteRequested, slog.String("sa", s.Name)) // software continues with it
	}
	for _, out := range a.answering(s) {
		if a.adapter.release(out) {
			return
		}
	}
}

// answeringNow is answering for callers that do not hold mu.
func (a *Appliance) answeringNow(s *sa.SA) []*sa.SA {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answering(s)
}

// answering returns the outbound SAs that may belong to an inbound one: between the same
// addresses and of the same kind, oldest first. The first that the NIC holds is the one,
// since the older generation goes first. It goes through all SAs; mu is held.
func (a *Appliance) answering(s *sa.SA) []*sa.SA {
	if !s.Dst.IsValid() || !s.Src.IsValid() {
		return nil
	}
	return a.roster.sas(func(out *member) bool {
		if out.Dst != s.Src || out.Src != s.Dst || out.Protocol != s.Protocol || out.Mode != s.Mode || out.Encap != s.Encap {
			return false
		}
		side, known := a.host.sides.decide(out.SA, a.host.local, len(a.config.Local) > 0)
		return known && side.outbound
	})
}

// release deletes the offloaded copy of an SA; there may be none.
func (a *Adapter) release(s *sa.SA) (held bool) {
	return a.sad.Delete(a.sad.Handle(s.ID())) == nil
}

// takes reports whether the NIC has what a bundle needs, and room for it and that many
// more.
func (a *Adapter) takes(bundle []*sa.SA, more int) error {
	if err := a.sad.Supports(bundle); err != nil {
		return err
	}
	if held, capacity := a.sad.Room(); capacity > 0 && held+more >= capacity {
		return fmt.Errorf("%s: %w (%d bundles)", bundle[0], sa.ErrFull, capacity)
	}
	return nil
}
