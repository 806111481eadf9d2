package event

import (
	"log/slog"
	"sync"
	"time"

	"tapsec/control"
)

// Kept is how many events a Log remembers. A listener further behind has lost some.
const Kept = 1024

// Log remembers the latest events. Its zero value is empty; several goroutines may use
// it. A listener has no queue of its own but a place in the list, so that nobody waits
// for it, and how many events it has lost is known.
type Log struct {
	mu     sync.Mutex
	ring   [Kept]control.Event // event n at n % Kept
	latest uint64              // number of the latest event; the first is 1
	more   chan struct{}       // closed by the next event; nil while nobody waits
}

// Tell adds an event. Its fields must be among those of its kind.
func (l *Log) Tell(k Kind, at time.Time, fields ...slog.Attr) {
	e := k.of(at, fields)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latest++
	e.ID = l.latest
	l.ring[l.latest%Kept] = e
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Place is where a listener begins that is to see the last n events, and then all new
// ones.
func (l *Log) Place(n uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest - min(n, l.latest, Kept)
}

// After gives the events after a place. If some of them are gone, the first is of kind
// Lost. More is closed once there are new ones.
func (l *Log) After(place uint64) (events []control.Event, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place = min(place, l.latest)
	if oldest := l.latest - min(l.latest, Kept); place < oldest {
		lost := Lost.of(time.Now(), []slog.Attr{slog.Uint64("events", oldest-place)})
		lost.ID = oldest
		events, place = append(events, lost), oldest
	}
	for n := place + 1; n <= l.latest; n++ {
		events = append(events, l.ring[n%Kept])
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return events, l.more
}
