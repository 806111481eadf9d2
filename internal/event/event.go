// Package event reports what happens to a running appliance and its SAs, as opposed to
// single frames: one list of kinds, and a Log that remembers the latest events and
// that any number of listeners follow. Reporting an event never waits for them.
package event

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"tapsec/control"
)

// Kind is the kind of an event.
type Kind uint8

// The kinds.
const (
	SAAdded Kind = iota
	SADeleted
	SADeleteRequested
	SAFailed
	SASoftExpired
	SAExpired
	SANumbersUsed
	SAResynchronised
	StormBegan
	StormEnded
	Engine
	InterfaceUp
	InterfaceDown
	OffloadSwitched
	Reloaded
	CaptureBegan
	CaptureEnded

	Lost // only from a Log, to a listener that was too slow
)

// kind is what is known of a kind; docs/events.md has the whole list.
type kind struct {
	name, sentence string
	level          slog.Level
	fields         []string // in the order in which people read them
}

var kinds = [...]kind{
	SAAdded:           {"sa-added", "SAs are in force now", slog.LevelInfo, []string{"sas"}},
	SADeleted:         {"sa-deleted", "SAs are no longer in force", slog.LevelInfo, []string{"sas"}},
	SADeleteRequested: {"sa-delete-requested", "the NIC asks for an SA to be deleted (SaDeleteReq)", slog.LevelInfo, []string{"sa"}},
	SAFailed:          {"sa-failed", "frames of an SA fail for the first time", slog.LevelWarn, []string{"sa", "reason", "frames", "suppressed"}},
	SASoftExpired:     {"sa-soft-expired", "the soft lifetime of an SA is over: time to rekey", slog.LevelWarn, lifeFields},
	SAExpired:         {"sa-expired", "the hard lifetime of an SA is over: nothing more comes through it", slog.LevelWarn, lifeFields},
	SANumbersUsed:     {"sa-numbers-used", "the sequence numbers of an SA are used up: nothing more leaves through it", slog.LevelWarn, lifeFields},
	SAResynchronised:  {"sa-resynchronised", "after a loss of more than 2^32 packets the numbers of an SA are known again", slog.LevelInfo, lifeFields},
	StormBegan:        {"storm-began", "a hundred frames or more failed within a second", slog.LevelWarn, []string{"sa", "reason", "frames"}},
	StormEnded:        {"storm-ended", "in each of the last five seconds fewer than a hundred frames failed", slog.LevelInfo, []string{"frames", "seconds"}},
	Engine:            {"engine", "what moves the frames was chosen", slog.LevelInfo, []string{"is", "why"}},
	InterfaceUp:       {"interface-up", "an interface sends and receives again", slog.LevelInfo, linkFields},
	InterfaceDown:     {"interface-down", "an interface is down, or its other end is", slog.LevelWarn, linkFields},
	OffloadSwitched:   {"offload-switched", "receive offload was enabled or disabled", slog.LevelInfo, []string{"active", "ah", "esp"}},
	Reloaded:          {"reloaded", "the configuration was read again and is in force", slog.LevelInfo, []string{"wire", "host", "stack", "queues", "sas", "offload", "inbound", "outbound", "went", "came"}},
	CaptureBegan:      {"capture-began", "somebody looks at the frames of the NIC, by the control socket", slog.LevelInfo, whoFields},
	CaptureEnded:      {"capture-ended", "that capture or trace has ended", slog.LevelInfo, whoFields},
	Lost:              {"events-lost", "events are missing here, since they were not read as fast as they came", slog.LevelWarn, []string{"events"}},
}

// lifeFields are the fields of what happens once to an SA.
var lifeFields = []string{"reason", "sa", "protocol", "spi", "seq", "src", "dst"}

// linkFields are the fields of what becomes of an interface.
var linkFields = []string{"interface", "suppressed"}

// whoFields are the fields of what a client of the control socket does.
var whoFields = []string{"stream", "uid", "pid"}

// Kinds lists every kind there is.
func Kinds() (all []Kind) {
	for k := range kinds {
		all = append(all, Kind(k))
	}
	return all
}

// String is the name, as in the lines of the log.
func (k Kind) String() string { return kinds[k].name }

// Sentence says what has happened.
func (k Kind) Sentence() string { return kinds[k].sentence }

// Level is the level of the event's line in the log.
func (k Kind) Level() slog.Level { return kinds[k].level }

// Fields are the names of the fields that an event of the kind may have, in order.
func (k Kind) Fields() []string { return kinds[k].fields }

// of makes an event. It panics if the list does not have a field.
func (k Kind) of(at time.Time, fields []slog.Attr) control.Event {
	e := control.Event{Time: at.UTC(), Event: k.String(), Text: k.Sentence(), Fields: map[string]any{}}
	for _, f := range fields {
		if !slices.Contains(k.Fields(), f.Key) {
			panic(fmt.Sprintf("event: %s has no field %q", k, f.Key))
		}
		switch v := f.Value.Resolve(); v.Kind() {
		case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64:
			e.Fields[f.Key] = v.Any()
		default:
			e.Fields[f.Key] = v.String()
		}
	}
	return e
}

// Line is an event as one line for people: the time of day, the name, and the fields
// as in the log.
func Line(e *control.Event) string {
	var order []string
	for _, k := range Kinds() {
		if k.String() == e.Event {
			order = k.Fields()
		}
	}
	var line strings.Builder
	line.WriteString(e.Time.Local().Format("15:04:05.000 ") + e.Event)
	for _, name := range order {
		value, there := e.Fields[name]
		if !there || value == "" {
			continue
		}
		text := fmt.Sprint(value)
		switch v := value.(type) {
		case float64:
			text = strconv.FormatFloat(v, 'f', -1, 64)
		case string:
			if strings.ContainsFunc(v, func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !strconv.IsPrint(r) }) {
				text = strconv.Quote(v)
			}
		}
		line.WriteString(" " + name + "=" + text)
	}
	return line.String()
}
