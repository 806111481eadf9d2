package keys

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tapsec/sa"
)

// Former is an SA that another one with its protocol, SPI and addresses has replaced, and when.
type Former struct {
	*sa.SA
	Until time.Time // zero if unknown
}

// eventTime reads the time before an event of ip xfrm monitor; n is the number of words that it
// takes, 0 if there is none. With -t it has a line of its own, "Timestamp: Sat Nov 28 12:00:00
// 2026 123456 usec"; with -ts it is "[2026-11-28T12:00:00.123456]". It has no zone, and is taken
// to be in this machine's.
func eventTime(words []string) (t time.Time, n int) {
	text, layout, micros := "", "", 0
	switch {
	case words[0] == "Timestamp:" && len(words) == 8:
		text, layout, n = strings.Join(words[1:6], " "), time.ANSIC, 8
		micros, _ = strconv.Atoi(words[6])
	case words[0][0] == '[':
		text, layout, n = strings.Trim(words[0], "[]"), "2006-01-02T15:04:05.000000", 1
	default:
		return t, 0
	}
	t, err := time.ParseInLocation(layout, text, time.Local)
	if err != nil {
		return t, 0
	}
	return t.Add(time.Duration(micros) * time.Microsecond), n
}

// succeed replaces an SA by another. If the keys differ, the old one stays known, for the frames
// of its time.
func (l *list) succeed(at int, p parsed) {
	old := l.All[at]
	l.All[at] = p.SA
	if old.Same(p.SA) {
		return
	}
	l.Former = append(l.Former, Former{old, p.at})
	if p.at.IsZero() {
		l.note(p.line, "%s has other keys from here on; the text has no times (ip -t xfrm monitor), and only these open frames", p.Name)
		return
	}
	old.Name = fmt.Sprintf("%s.%d", p.Name, len(l.Former))
	l.note(p.line, "%s has other keys from %s on; before, it is %s", p.Name, clock(p.at), old.Name)
}

// clock is how notes show a time.
func clock(t time.Time) string { return t.Format("2006-01-02T15:04:05.000000Z07:00") }
