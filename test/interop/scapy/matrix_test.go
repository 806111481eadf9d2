package scapy

import (
	"fmt"

	"tapsec/test/interop"
)

// matrix counts frames by the lines of the matrix.
type matrix struct {
	lines []interop.Line
	count map[string]*tally
}

type tally struct{ good, damaged, differ int }

func newMatrix() *matrix { return &matrix{count: map[string]*tally{}} }

// add counts a frame in its line. What the peer said is that it agrees, or said.
func (m *matrix) add(way interop.Way, what, said string, good bool, differs error) {
	if said == "" {
		said = interop.Agrees
	}
	key := string(way) + what
	n := m.count[key]
	if n == nil {
		n = &tally{}
		m.count[key] = n
		m.lines = append(m.lines, interop.Line{Peer: "scapy", Version: "2.5.0", What: what, Way: way, Said: said})
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
func (m *matrix) finished() []interop.Line {
	for i := range m.lines {
		l := &m.lines[i]
		n := m.count[string(l.Way)+l.What]
		l.Frames = fmt.Sprintf("%d good", n.good)
		if n.damaged > 0 {
			l.Frames += fmt.Sprintf(", %d damaged", n.damaged)
		}
		if n.differ > 0 {
			l.Said = fmt.Sprintf("%d differ", n.differ)
		}
	}
	return m.lines
}
