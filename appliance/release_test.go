//go:build linux

package appliance

import (
	"fmt"
	"net/netip"
	"testing"

	"tapsec/configs"
	"tapsec/sa"
)

// The outbound SA that belongs to an inbound one goes between the same addresses, and is of
// its protocol, mode and encapsulation; of several the oldest comes first (contract,
// Lifecycle).
func TestAnswering(t *testing.T) {
	us, them, others := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	a := &Appliance{config: configs.Default(), roster: newRoster(), host: &host{sides: newSides(), local: []netip.Addr{us}}}
	add := func(name string, change func(*sa.SA)) *sa.SA {
		s := &sa.SA{Name: name, SPI: uint32(a.roster.len()) + 9, Protocol: sa.ESP, Mode: sa.Tunnel, Src: us, Dst: them}
		change(s)
		a.roster.add([]*sa.SA{s}, ofFile)
		return s
	}
	in := add("in", func(s *sa.SA) { s.Src, s.Dst = them, us })
	add("AH", func(s *sa.SA) { s.Protocol = sa.AH })
	add("transport", func(s *sa.SA) { s.Mode = sa.Transport })
	add("encapsulated", func(s *sa.SA) { s.Encap = true })
	add("to others", func(s *sa.SA) { s.Dst = others })
	add("from others", func(s *sa.SA) { s.Src = others })
	add("said in", func(s *sa.SA) { s.Direction = sa.Inbound })
	add("old", func(*sa.SA) {})
	add("new", func(*sa.SA) {})
	var names []string
	for _, s := range a.answering(in) {
		names = append(names, s.Name)
	}
	if fmt.Sprint(names) != "[old new]" {
		t.Errorf("it belongs to %q", names)
	}
}
