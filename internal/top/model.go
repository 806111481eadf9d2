package top

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"tapsec/control"
	"tapsec/transport"
)

// reading is what an appliance said at one moment.
type reading struct {
	at       time.Time
	counters map[string][]control.Sample // by name, without the prefix tapsec_
	events   []control.Event
	err      error // instead of all that
}

// model is what there is to see: two readings, and what the user has chosen.
type model struct {
	socket       string
	before, now  reading
	err          error  // of the latest attempt
	selected     string // name of an SA
	explains     bool   // show the selected SA instead of the list
	first        int    // the SA, or line of the explanation, at the top
	shown, lines int    // how many of them fit, and how many there are
}

// take takes a reading. If it failed, the last one stays on screen.
func (m *model) take(r reading) {
	if m.err = r.err; r.err == nil {
		m.before, m.now = m.now, r
	}
}

// sum adds up a counter's samples that have these labels, given as names and values in
// turn.
func (r *reading) sum(name string, labels ...string) (sum float64) {
	for _, s := range r.counters[name] {
		if has(&s, labels) {
			sum += s.Value
		}
	}
	return sum
}

func has(s *control.Sample, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if s.Labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// rise is the increase per second. An appliance that was restarted counts from zero.
func (m *model) rise(now, before float64) float64 {
	seconds := m.now.at.Sub(m.before.at).Seconds()
	if m.before.at.IsZero() || seconds <= 0 {
		return 0
	}
	return max(0, now-before) / seconds
}

func (m *model) rateOf(name string, labels ...string) float64 {
	return m.rise(m.now.sum(name, labels...), m.before.sum(name, labels...))
}

// row is an SA. A number that nobody counts is NaN.
type row struct {
	name             string
	offloaded        bool
	packets, failing float64 // per second
	failed, dropped  float64 // in total; failed are frames whose check failed
	window, top      float64
	gaps, replays    float64
	late, esnMark    float64
	unused           float64 // seconds
}

var failedReasons = func() (names []string) {
	for _, r := range transport.Reasons() {
		if r.Failed() {
			names = append(names, r.String())
		}
	}
	return names
}()

// failedOf is how many frames of each SA have failed, whoever found it.
func (r *reading) failedOf() map[string]float64 {
	all := map[string]float64{}
	for _, s := range r.counters["sa_dropped_frames"] {
		if slices.Contains(failedReasons, s.Labels["reason"]) {
			all[s.Labels["sa"]] += s.Value
		}
	}
	for _, s := range r.counters["sa_failed_frames"] {
		all[s.Labels["sa"]] = max(all[s.Labels["sa"]], s.Value)
	}
	return all
}

// by gives the values of a counter by SA.
func (r *reading) by(name string) map[string]float64 {
	all := map[string]float64{}
	for _, s := range r.counters[name] {
		all[s.Labels["sa"]] += s.Value
	}
	return all
}

// rows are the SAs: first those that fail now, then those that have failed, then those
// with the most traffic.
func (m *model) rows() (rows []row) {
	names := map[string]bool{}
	for _, counter := range []string{"sa_offloaded", "sa_packets"} {
		for name := range m.now.by(counter) {
			names[name] = true
		}
	}
	failed, packets := m.now.failedOf(), m.now.by("sa_packets")
	failedBefore, packetsBefore := m.before.failedOf(), m.before.by("sa_packets")
	value := map[string]map[string]float64{}
	for _, name := range []string{"sa_offloaded", "sa_dropped_frames", "sa_window_packets", "sa_highest_number", "sa_window_gaps",
		"sa_replays", "sa_late", "sa_esn_mark", "sa_unused_seconds"} {
		value[name] = m.now.by(name)
	}
	for name := range names {
		of := func(counter string) float64 {
			if v, there := value[counter][name]; there {
				return v
			}
			return math.NaN()
		}
		r := row{name: name, offloaded: value["sa_offloaded"][name] == 1, failed: failed[name], dropped: value["sa_dropped_frames"][name],
			window: of("sa_window_packets"), top: of("sa_highest_number"), gaps: of("sa_window_gaps"), replays: of("sa_replays"),
			late: of("sa_late"), esnMark: of("sa_esn_mark"), unused: of("sa_unused_seconds"), packets: math.NaN()}
		r.failing = m.rise(failed[name], failedBefore[name])
		if _, counted := packets[name]; counted {
			r.packets = m.rise(packets[name], packetsBefore[name])
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.failing, a.failing), cmp.Compare(b.failed, a.failed), cmp.Compare(b.packets, a.packets), cmp.Compare(a.name, b.name))
	})
	return rows
}

// short formats a number in at most seven columns, and as a dash if nobody counts it.
func short(n float64) string {
	switch {
	case math.IsNaN(n):
		return "-"
	case n > 0 && n < 9.95:
		return fmt.Sprintf("%.1f", n)
	case n < 99999.5:
		return fmt.Sprintf("%.0f", n)
	}
	for _, unit := range "kMGTP" {
		if n /= 1000; n < 9999.5 {
			return fmt.Sprintf("%.4g%c", n, unit)
		}
	}
	return "much"
}

// whole formats a count in full.
func whole(n float64) string {
	if n > 0 && n < 100000 {
		return fmt.Sprintf("%.0f", n)
	}
	return short(n)
}

// counted lists a counter's samples that are not zero, by the value of a label.
func (r *reading) counted(name, label string, labels ...string) (names []string, values map[string]float64) {
	values = map[string]float64{}
	for _, s := range r.counters[name] {
		if s.Value > 0 && has(&s, labels) {
			values[s.Labels[label]] += s.Value
		}
	}
	names = slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return cmp.Or(cmp.Compare(values[b], values[a]), cmp.Compare(a, b))
	})
	return names, values
}
