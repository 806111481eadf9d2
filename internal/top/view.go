package top

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tapsec/internal/event"
	"tapsec/internal/outbound"
	"tapsec/internal/wrap"
	"tapsec/status"
	"tapsec/transport"
)

// look is how a line looks.
type look uint8

const (
	plain look = iota
	head
	alarm  // fails now
	notice // has failed
	chosen
)

// line is a line of the screen.
type line struct {
	text string
	look look
}

// view returns the lines of a screen.
func (m *model) view(width, height int) []line {
	lines := m.summary(width)
	if m.err != nil {
		lines = append(lines, line{"no answer, asking again: " + m.err.Error(), alarm})
	}
	help := line{"up, down: choose an SA   e: explain   q: quit", head}
	room := max(0, height-len(lines)-1)
	if m.explains {
		help.text = "up, down: scroll   e: back to the list   q: quit"
		lines = append(lines, m.explanation(width, room)...)
	} else {
		lines = append(lines, m.list(width, room)...)
	}
	for len(lines) < height-1 {
		lines = append(lines, line{})
	}
	return append(lines[:max(0, min(len(lines), height-1))], help)
}

// summary is what is moved and how it is judged.
func (m *model) summary(width int) []line {
	when := ""
	if !m.now.at.IsZero() {
		when = m.now.at.Format(" 15:04:05")
	}
	lines := []line{{pad("tapsec at "+m.socket, width-len(when)) + when, head}}
	for _, way := range []string{"to_host", "to_wire"} {
		lost := m.now.sum("lost_frames", "way", way)
		text := fmt.Sprintf("%-8s %7s frames/s  %7sbit/s  %7s lost", strings.ReplaceAll(way, "_", " "),
			short(m.rateOf("received_frames", "way", way)), short(8*m.rateOf("received_bytes", "way", way)), whole(lost))
		for _, s := range m.now.counters["nic_time_seconds"] {
			if s.Labels["way"] == way && s.Histogram != nil && s.Value > 0 && !math.IsInf(s.Quantile(0.99), 1) {
				text += fmt.Sprintf("  99 %% within %s us", short(1e6*s.Quantile(0.99)))
			}
		}
		lines = append(lines, line{text, plain})
	}
	return append(lines, m.state(), m.verdicts("NIC", "nic_status_frames", "status"), m.verdicts("verdict", "transport_frames", "verdict"), m.latest())
}

// state is the state of the NIC's table and switches.
func (m *model) state() line {
	if len(m.now.counters["nic_offload"]) == 0 {
		return line{"no NIC here", plain}
	}
	l := line{text: "offload on"}
	for _, of := range []string{"all", "ah", "esp"} {
		if m.now.sum("nic_offload", "of", of) == 0 {
			l = line{"offload off: " + of, notice}
		}
	}
	l.text += fmt.Sprintf(", %.0f bundles", m.now.sum("nic_bundles"))
	if room := m.now.sum("nic_capacity_bundles"); room > 0 {
		l.text += fmt.Sprintf(" of %.0f", room)
	}
	return l
}

// latest is the latest event; tapsec events has them all.
func (m *model) latest() line {
	text := "none"
	if n := len(m.now.events); n > 0 {
		text = event.Line(&m.now.events[n-1])
	}
	return line{"event    " + text, plain}
}

// verdicts are frames per second by status or verdict, for those ever seen.
func (m *model) verdicts(who, counter, label string) line {
	l := line{text: fmt.Sprintf("%-8s", who)}
	names, _ := m.now.counted(counter, label)
	for _, name := range names {
		rate := m.rateOf(counter, label, name)
		l.text += fmt.Sprintf(" %s %s/s", strings.TrimPrefix(name, "CRYPTO_"), short(rate))
		if bad := name != status.Success.String() && label == "status" || name == transport.Drop.String(); bad && rate > 0 {
			l.look = alarm
		}
	}
	if len(names) == 0 {
		l.text += " none"
	}
	return l
}

// list is the list of the SAs.
func (m *model) list(width, room int) []line {
	const (
		columns = "%s %s %3s %9s %8s %7s %8s %7s %6s %6s"
		fixed   = 64 // columns, without the name's
	)
	space := max(12, width-fixed)
	lines := []line{{fmt.Sprintf(columns, " ", pad("SA", space), "NIC", "PACKETS/S", "FAILED/S", "FAILED", "DROPPED", "REPLAYS", "WINDOW", "GAPS"), head}}
	rows := m.rows()
	at := m.choose(rows)
	m.lines, m.shown = len(rows), max(1, room-1)
	m.first = max(0, min(m.first, at, m.lines-m.shown), at-m.shown+1)
	for i := m.first; i < min(len(rows), m.first+m.shown); i++ {
		r := &rows[i]
		held := "no"
		if r.offloaded {
			held = "yes"
		}
		mark := " "
		if i == at {
			mark = ">"
		}
		l := line{text: fmt.Sprintf(columns, mark, pad(r.name, space), held, short(r.packets), short(r.failing), whole(r.failed), whole(r.dropped),
			whole(r.replays), whole(r.window), whole(r.gaps))}
		switch {
		case r.failing > 0:
			l.look = alarm
		case r.failed > 0:
			l.look = notice
		case i == at:
			l.look = chosen
		}
		lines = append(lines, l)
	}
	if len(rows) == 0 {
		lines = append(lines, line{"there is no SA", plain})
	}
	return lines
}

// choose returns the place of the chosen SA, or the first if that is gone.
func (m *model) choose(rows []row) int {
	at := slices.IndexFunc(rows, func(r row) bool { return r.name == m.selected })
	if at < 0 && len(rows) > 0 {
		m.selected = rows[0].name
	}
	return max(at, 0)
}

// explanation says why frames of the chosen SA are not delivered, and what the NIC, the
// transport and the sending side say of all frames.
func (m *model) explanation(width, room int) []line {
	var lines []line
	add := func(look look, format string, args ...any) {
		for part := range strings.Lines(wrap.Fit(fmt.Sprintf(format, args...), 2, width)) {
			lines = append(lines, line{strings.TrimSuffix(part, "\n"), look})
		}
	}
	for _, r := range m.rows() {
		if r.name != m.selected {
			continue
		}
		add(head, "SA %s", r.name)
		add(plain, "failed %s, dropped %s; last used %s s ago; window %s: highest number %s, %s never came, %s seen before, %s too old; ESN mark %s",
			whole(r.failed), whole(r.dropped), short(r.unused), whole(r.window), whole(r.top), whole(r.gaps), whole(r.replays), whole(r.late), whole(r.esnMark))
		m.reasons(add, "sa_dropped_frames", transportSays, "sa", r.name)
		if r.failed > 0 {
			add(plain, "To find the cause, capture and replay: tapsec replay tries near misses of the keys and names what it finds (docs/diagnosis.md).")
		}
	}
	add(head, "All frames, by the NIC's reason")
	m.reasons(add, "nic_reason_frames", nicSays)
	add(head, "Held and dropped, by the transport's reason")
	m.reasons(add, "transport_reason_frames", transportSays)
	add(head, "From the stack, by the sending side's reason")
	m.reasons(add, "outbound_frames", outboundSays)
	m.lines, m.shown = len(lines), max(1, room)
	m.first = max(0, min(m.first, m.lines-m.shown))
	return lines[m.first:min(len(lines), m.first+m.shown)]
}

// reasons adds a line for each reason that was counted: docs/reasons.md has all.
func (m *model) reasons(add func(look, string, ...any), counter string, says func(string) string, labels ...string) {
	names, values := m.now.counted(counter, "reason", labels...)
	for _, name := range names {
		add(plain, "  %s %s: %s", whole(values[name]), name, says(name))
	}
	if len(names) == 0 {
		add(plain, "  none")
	}
}

func nicSays(name string) string       { return sentence(status.Reasons(), name) }
func transportSays(name string) string { return sentence(transport.Reasons(), name) }
func outboundSays(name string) string  { return sentence(outbound.Reasons(), name) }

// sentence is the sentence of the reason with a name.
func sentence[R interface {
	fmt.Stringer
	Sentence() string
}](all []R, name string) string {
	for _, r := range all {
		if r.String() == name {
			return r.Sentence()
		}
	}
	return "a reason that this version does not know"
}

// pad makes a text that many columns wide.
func pad(text string, columns int) string {
	runes := []rune(text)
	if len(runes) > columns {
		return string(runes[:max(0, columns-1)]) + "~"
	}
	return text + strings.Repeat(" ", columns-len(runes))
}
