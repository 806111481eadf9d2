//go:build linux

package appliance

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"tapsec/control"
	"tapsec/internal/audit"
	"tapsec/internal/event"
	"tapsec/sa"
)

// remote is the control interface of a NIC in another process. It is called in the
// background, so that no frame waits. A NIC that does not answer is asked again each
// second for a while; meanwhile frames ask for no more of the same.
type remote struct {
	client *control.Client
	host   *Appliance // whose transport asks

	mu       sync.Mutex
	updating map[sa.ID]bool
	limit    audit.Limiter[sa.ID] // bounds what is logged
}

const (
	remotePause = time.Second
	remoteTries = 30
)

func newRemote(c *control.Client, host *Appliance) *remote {
	return &remote{client: c, host: host, updating: map[sa.ID]bool{}}
}

// Update is called for each frame that shows the NIC to be behind.
func (n *remote) Update(s *sa.SA, high uint32) {
	id, ref := s.ID(), control.RefOf(s)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.updating[id] {
		return
	}
	n.updating[id] = true
	go func() {
		_ = n.ask(id, func() error { return n.client.Update(ref, high) }) // a frame asks again
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.updating, id)
	}()
}

// Delete takes back an SA and the outbound SA that belongs to it, which the NIC may
// have dropped already.
func (n *remote) Delete(s *sa.SA) {
	n.host.tell(event.SADeleteRequested, slog.String("sa", s.Name))
	go func() {
		id := s.ID()
		_ = n.ask(id, func() error { return n.client.Delete(control.RefOf(s), false) }) // it is the NIC's that has failed
		for _, out := range n.host.answeringNow(s) {
			if !errors.Is(n.ask(id, func() error { return n.client.Delete(control.RefOf(out), false) }), sa.ErrUnknown) {
				return
			}
		}
	}()
}

// ask asks until there is an answer, or the NIC lacks the SA.
func (n *remote) ask(about sa.ID, do func() error) (err error) {
	for range remoteTries {
		if err = do(); err == nil || errors.Is(err, sa.ErrUnknown) {
			return err
		}
		const onlyReason = 0
		if suppressed, ok := n.limit.Allow(onlyReason, about); ok {
			n.host.log.Warn("the NIC was not told", "sa", about, "err", err, "suppressed", suppressed)
		}
		time.Sleep(remotePause)
	}
	return err
}
