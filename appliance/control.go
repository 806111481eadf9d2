//go:build linux

package appliance

import (
	"iter"
	"time"

	server "tapsec/internal/control"
	"tapsec/internal/outbound"
	window "tapsec/internal/replay"
	"tapsec/sa"
	"tapsec/transport"
)

// answer opens the control socket, if there is to be one.
func (a *Appliance) answer() (err error) {
	if a.options.Control == "" {
		return nil
	}
	c := server.Config{SAs: lifecycle{a}, Events: &a.events.all, Log: a.log, Documents: map[string]func() any{
		"moved":  func() any { return a.nic.Summary() },
		"status": func() any { return a.status() },
	}}
	c.Streams = a.streams()
	if a.adapter != nil {
		c.Documents["nic"] = func() any { return a.adapter.report() }
	}
	if a.host != nil {
		c.Documents["transport"] = func() any { return a.host.consumer.Summary() }
		c.Documents["windows"] = func() any { return a.host.windows() }
		c.Documents["outbound"] = func() any { return a.host.sealed() }
	}
	a.server, err = server.Open(a.options.Control, c)
	return err
}

// lookAtSocket says that the control socket is gone. A confined program cannot make another.
func (a *Appliance) lookAtSocket() {
	lost := a.server != nil && !a.server.There()
	if lost && !a.unheard {
		a.log.Error("the control socket is gone: somebody removed or replaced it; only a restart makes it anew", "path", a.options.Control)
	}
	a.unheard = lost
}

// windowReport is one line of the document "windows".
type windowReport struct {
	Name string `json:"name"`
	sa.ID
	Window  window.State      `json:"window"`
	T       uint64            `json:"t"` // with ESN the highest number authenticated
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"`
	Dropped map[string]uint64 `json:"dropped,omitempty"` // by reason
	Since   time.Time         `json:"since"`
}

func (h *host) windows() iter.Seq[any] {
	return func(yield func(any) bool) {
		for s := range h.consumer.States() {
			if !yield(windowOf(&s)) {
				return
			}
		}
	}
}

func windowOf(s *transport.SAState) windowReport {
	w := windowReport{Name: s.Name, ID: s.ID(), Window: s.Window, T: s.T, Packets: s.Tally.Packets,
		Bytes: s.Tally.Bytes, Since: s.Since.UTC(), Dropped: map[string]uint64{}}
	for reason, n := range s.Tally.Dropped {
		if n > 0 {
			w.Dropped[transport.Reason(reason).String()] = n
		}
	}
	return w
}

// sealed lists what the outbound side did, by reason.
func (h *host) sealed() map[string]uint64 {
	counts := map[string]uint64{}
	sent := h.sender.Counts()
	for _, reason := range outbound.Reasons() {
		if n := sent[reason]; n > 0 {
			counts[reason.String()] = n
		}
	}
	return counts
}
