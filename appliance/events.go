//go:build linux

package appliance

import (
	"log/slog"
	"time"

	"tapsec/internal/audit"
	"tapsec/internal/event"
	"tapsec/pipeline"
	"tapsec/status"
)

// events are the Appliance's events, and what they are derived from once a second.
type events struct {
	all   event.Log
	watch event.Watch
	links []*audit.Changes[bool] // of the two interfaces: it sends and receives
	nic   nicFailures
	asked map[uint32]bool // handles of the SAs whose deletion request was reported
}

// tell reports an event: in a line of the log, and in the list that others follow.
func (a *Appliance) tell(k event.Kind, fields ...slog.Attr) { a.tellAt(time.Now(), k, fields...) }

func (a *Appliance) tellAt(at time.Time, k event.Kind, fields ...slog.Attr) {
	l := line{time: at, level: k.Level(), attrs: fields}
	l.log(a.log, k.String())
	a.events.all.Tell(k, at, fields...)
}

// followInterfaces reports how each of the two interfaces changes, at a bounded rate. In different
// namespaces both may have one name.
func (a *Appliance) followInterfaces() {
	wire, host := a.link(a.ports.wire.Name()), a.link(a.ports.host.Name())
	a.events.links = []*audit.Changes[bool]{wire, host}
	a.ports.follow(wire.Changed, host.Changed)
}

// link reports whether an interface sends and receives.
func (a *Appliance) link(name string) *audit.Changes[bool] {
	return &audit.Changes[bool]{Report: func(up bool, suppressed uint64) {
		kind := event.InterfaceDown
		if up {
			kind = event.InterfaceUp
		}
		fields := []slog.Attr{slog.String("interface", name)}
		if suppressed > 0 {
			fields = append(fields, slog.Uint64("suppressed", suppressed))
		}
		a.tell(kind, fields...)
	}}
}

// settle reports the state of what changed more often than was reported.
func (a *Appliance) settle() {
	for _, changes := range a.events.links {
		changes.Settle()
	}
	if a.host != nil {
		a.host.moves.Settle()
		a.host.resizes.Settle()
	}
}

// watch reports what happened in the last second and no call has reported. What
// fails is left to the transport, if there is one.
func (a *Appliance) watch(now time.Time) {
	var failures []event.Failure
	switch {
	case a.host != nil:
		for _, f := range a.host.consumer.Failures() {
			failures = append(failures, event.Failure{SA: f.SA, Reason: f.Reason.Qualified(), Frames: f.Frames, First: f.First})
		}
	case a.adapter != nil:
		failures = a.events.nic.since(a.adapter)
		a.events.asked = a.adapter.tellAsked(a.events.asked, func(name string) {
			a.tell(event.SADeleteRequested, slog.String("sa", name))
		})
	}
	a.events.watch.Second(now, failures)
}

// nicFailures are a NIC's failures when last seen. In a second without any, no SA is
// looked at.
type nicFailures struct {
	frames uint64
	by     map[uint32]uint64 // by handle, which an SA that a reload leaves alone keeps
}

func (n *nicFailures) since(a *Adapter) (all []event.Failure) {
	frames := a.Failed()
	if frames == n.frames {
		return nil
	}
	n.frames = frames
	before := n.by
	n.by = map[uint32]uint64{}
	a.sad.Failing(func(h pipeline.Holding, why status.Reason) {
		n.by[h.Handle] = h.Failed
		if more := h.Failed - before[h.Handle]; more > 0 {
			all = append(all, event.Failure{SA: h.Name, Reason: why.Qualified(), Frames: more, First: before[h.Handle] == 0})
		}
	})
	return all
}

// tellAsked reports, once each, the SAs whose deletion frames ask for.
func (a *Adapter) tellAsked(before map[uint32]bool, tell func(name string)) (now map[uint32]bool) {
	if !a.sad.UnderPressure() {
		return nil
	}
	now = map[uint32]bool{}
	a.sad.Asked(func(h pipeline.Holding) {
		if now[h.Handle] = true; !before[h.Handle] {
			tell(h.Name)
		}
	})
	return now
}
