package tshark

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"tapsec/test/interop"
)

// matrix counts frames by the lines of the matrix.
type matrix struct {
	lines  []interop.Line
	count  map[interop.Line]*tally
	beyond map[string]int // frames by tapsec's reason in which tshark finds more good ESP

	unasked map[string]int // frames by why they were not compared
}

type tally struct{ good, damaged, differ int }

func newMatrix() *matrix {
	return &matrix{count: map[interop.Line]*tally{}, beyond: map[string]int{}, unasked: map[string]int{}}
}

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
	sum := tally{}
	for _, n := range m.count {
		sum.good, sum.damaged, sum.differ = sum.good+n.good, sum.damaged+n.damaged, sum.differ+n.differ
	}
	add := func(what, frames, said string) {
		lines = append(lines, interop.Line{Peer: "tshark", Version: version, Way: interop.BothOpen, Frames: frames, What: what, Said: said})
	}
	add("all of these together", fmt.Sprintf("%d good, %d damaged", sum.good, sum.damaged), fmt.Sprintf("%d differ otherwise than these lines say", sum.differ))
	for _, reason := range slices.Sorted(maps.Keys(m.beyond)) {
		add("among these and those below, ESP that is not good for "+reason, strconv.Itoa(m.beyond[reason]), "looks at ESP alone, and calls its ICV good")
	}
	for _, why := range slices.Sorted(maps.Keys(m.unasked)) {
		add("not compared: "+why, strconv.Itoa(m.unasked[why]), "is not asked")
	}
	return lines
}
