package tshark

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tapsec/test/interop"
)

// matrix counts frames by the lines of the matrix.
type matrix struct {
	lines  []interop.Line
	count  map[interop.Line]*tally
	beyond map[string]int // frames by tapsec's reason in which tshark finds more good ESP
}

type tally struct{ good, damaged, differ int }

func newMatrix() *matrix { return &matrix{count: map[interop.Line]*tally{}, beyond: map[string]int{}} }

// add counts a frame in its line.
func (m *matrix) add(l interop.Line, good bool, differs error) {
	n := m.count[l]
	if n == nil {
		n = &tally{}
		m.count[l] = n
		m.lines = append(m.lines, l)
	}
	if good {
		n.good++
	} else {
		n.damaged++
	}
	if differs != nil {
		n.differ++
	}
}

// finished gives the lines.
func (m *matrix) finished(version string) (lines []interop.Line) {
	for _, l := range m.lines {
		n := m.count[l]
		l.Version, l.Frames = version, fmt.Sprintf("%d good, %d damaged", n.good, n.damaged)
		if n.differ > 0 {
			l.Said = fmt.Sprintf("%d differ", n.differ)
		}
		lines = append(lines, l)
	}
	frames := 0
	for _, n := range m.beyond {
		frames += n
	}
	return append(lines, interop.Line{
		Peer: "tshark", Version: version, Way: interop.BothOpen, Frames: fmt.Sprintf("%d", frames),
		What: "among these, ESP that tapsec does not call good: " + strings.Join(slices.Sorted(maps.Keys(m.beyond)), ", "),
		Said: "looks at ESP alone, and calls its ICV good",
	})
}
