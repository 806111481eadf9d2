package appliance

import (
	"fmt"
	"net/netip"
	"testing"

	"tapsec/sa"
)

// Which way an SA goes, and that it does not turn round because an address is gone
// (contract, Direction).
func TestSides(t *testing.T) {
	addr := func(s string) (a netip.Addr) {
		if s != "" {
			a = netip.MustParseAddr(s)
		}
		return a
	}
	type step struct {
		local []string
		want  string // in, out or undecided
	}
	for name, c := range map[string]struct {
		src, dst  string
		direction sa.Direction
		fixed     bool // local stands in the configuration
		steps     []step
	}{
		"to us": {"192.0.2.1", "192.0.2.2", 0, false, []step{
			{nil, "undecided"}, {[]string{"fe80::1"}, "undecided"}, {[]string{"192.0.2.2"}, "in"}, {[]string{"192.0.2.9"}, "in"}, {nil, "in"}}},
		"from us": {"192.0.2.2", "192.0.2.1", 0, false, []step{
			{nil, "undecided"}, {[]string{"192.0.2.2"}, "out"}, {[]string{"192.0.2.9"}, "out"}, {[]string{"192.0.2.1"}, "out"}, {nil, "out"}}},
		"a gateway's":             {"198.51.100.1", "198.51.100.2", 0, false, []step{{[]string{"fd00::1"}, "undecided"}, {[]string{"192.0.2.2"}, "out"}, {nil, "out"}}},
		"an address comes late":   {"", "192.0.2.2", 0, false, []step{{[]string{"192.0.2.9"}, "out"}, {[]string{"192.0.2.2", "192.0.2.9"}, "in"}, {[]string{"192.0.2.9"}, "in"}}},
		"IPv6":                    {"fd00::2", "fd00::1", 0, false, []step{{[]string{"192.0.2.2", "fe80::1"}, "undecided"}, {[]string{"fd00::2"}, "out"}}},
		"to anybody":              {"", "", 0, false, []step{{nil, "in"}}},
		"said in":                 {"192.0.2.2", "192.0.2.1", sa.Inbound, false, []step{{nil, "in"}, {[]string{"192.0.2.2"}, "in"}}},
		"said out":                {"192.0.2.1", "192.0.2.2", sa.Outbound, false, []step{{nil, "out"}, {[]string{"192.0.2.2"}, "out"}}},
		"to anybody, local given": {"", "", 0, true, []step{{[]string{"192.0.2.9"}, "in"}}},
		"local given":             {"192.0.2.1", "192.0.2.2", 0, true, []step{{[]string{"192.0.2.9"}, "out"}, {[]string{"192.0.2.2"}, "in"}}},
	} {
		s := newSides()
		for i, step := range c.steps {
			one := &sa.SA{Name: "one", SPI: 9, Protocol: sa.ESP, Mode: sa.Transport, Src: addr(c.src), Dst: addr(c.dst), Direction: c.direction}
			var local []netip.Addr
			for _, l := range step.local {
				local = append(local, addr(l))
			}
			d := s.divide([][]*sa.SA{{one}}, local, c.fixed)
			s.keep(&d, nil)
			got := map[string]string{"1 0 0": "in", "0 1 0": "out", "0 0 1": "undecided"}[fmt.Sprint(len(d.inbound), len(d.outbound), len(d.undecided))]
			if got != step.want {
				t.Errorf("%s, step %d with %v: %s, want %s", name, i, step.local, got, step.want)
			}
		}
	}
}

// What an outbound or undecided SA or a rule protects is held back from then on; what a
// rule lets out, and what comes in, is not (contract, Direction).
func TestProtects(t *testing.T) {
	one := func(name string, dst string) []*sa.SA {
		return []*sa.SA{{Name: name, SPI: 9, Protocol: sa.ESP, Mode: sa.Transport, Dst: netip.MustParseAddr(dst)}}
	}
	to := func(s string) sa.Selector { return sa.Selector{Dst: netip.MustParsePrefix(s)} }
	d := division{inbound: [][]*sa.SA{one("in", "192.0.2.1")}, outbound: [][]*sa.SA{one("out", "192.0.2.2")}, undecided: [][]*sa.SA{one("perhaps", "192.0.2.3")}}
	policy := []sa.Policy{{Match: to("10.0.0.1/32"), Action: sa.Protect}, {Match: to("10.0.0.2/32"), Action: sa.Discard}, {Match: to("10.0.0.3/32"), Action: sa.Bypass}}
	s := newSides()
	for _, c := range []struct {
		use  [][]string
		want int
	}{{[][]string{{"out"}}, 3}, {nil, 4}} {
		if more := s.protects(policy, &d, c.use); len(more) != c.want {
			t.Errorf("using %v, held: %+v", c.use, more)
		}
	}
	s.keep(&d, s.protects(policy, &d, nil))
	if more := s.protects(policy, &d, nil); len(more) != 0 || len(s.held) != 4 {
		t.Errorf("once more %+v, in all %v", more, s.held)
	}
}
