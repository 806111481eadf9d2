package linux

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tapsec/keys"
	"tapsec/test/interop"
)

// matrix counts frames by the lines of the matrix.
type matrix struct {
	version string
	lines   []interop.Line
	count   map[string]*tally
}

type tally struct{ good, refused, differ int }

func newMatrix() *matrix { return &matrix{count: map[string]*tally{}} }

// of gives the tally of a line.
func (m *matrix) of(what string) *tally {
	n := m.count[what]
	if n == nil {
		n = &tally{}
		m.count[what] = n
		m.lines = append(m.lines, interop.Line{Peer: "Linux", What: what})
	}
	return n
}

// add counts a frame, which differs if its test has failed.
func (m *matrix) add(what string, t *testing.T) {
	n := m.of(what)
	n.good++
	if t.Failed() {
		n.differ++
	}
}

// finished gives the lines, all of one way.
func (m *matrix) finished(way interop.Way) []interop.Line {
	for i := range m.lines {
		l := &m.lines[i]
		n := m.count[l.What]
		l.Version, l.Way, l.Frames, l.Said = m.version, way, fmt.Sprintf("%d good", n.good), interop.Agrees
		if n.refused > 0 {
			l.Frames += fmt.Sprintf(", %d damaged", n.refused)
		}
		if n.differ > 0 {
			l.Said = fmt.Sprintf("%d differ", n.differ)
		}
	}
	return m.lines
}

// suitesOf reads the suites of SAs by protocol and SPI.
func suitesOf(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	read, err := keys.Read(file, text)
	if err != nil {
		t.Fatal(err)
	}
	suites := map[string]string{}
	for _, s := range read.All {
		suites[fmt.Sprintf("%s 0x%08x", s.Protocol, s.SPI)] = s.Suite.Name
	}
	return suites
}

// group is the datagram's line: its suites where they are the matter, else only
// how its SAs are stacked.
func (d *datagram) group(capture string, suites map[string]string) string {
	var layers []string
	for _, a := range d.outermost {
		layers = append(layers, a.mode+" "+strings.ToUpper(a.protocol))
	}
	slices.Reverse(layers)
	stack := strings.Join(layers, " in ")
	suite := suites[d.outermost[0].protocol+" "+d.outermost[0].spi]
	switch capture {
	case "esp-aead", "ah":
		return fmt.Sprintf("%s, %s", stack, suite)
	case "esp-composed":
		cipher, _, _ := strings.Cut(suite, "-")
		return fmt.Sprintf("%s, %s with each integrity", stack, cipher)
	case "encap":
		return stack + ", ESP in UDP"
	case "esn":
		return stack + ", ESN"
	case "tfc":
		return stack + ", filled up (TFC)"
	case "headers":
		return stack + ", options and extension headers"
	case "vlan":
		return stack + ", two VLAN tags"
	}
	return stack
}
