//go:build linux

package appliance

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"tapsec/sa"
)

// Members with the same hash are told apart, whatever comes and goes.
func TestLookupAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, model := newLookup(), map[string]*member{}
		names := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		hash := func(name string) uint64 { return uint64(name[0] % 2) }
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				if name := names.Draw(t, "name"); model[name] == nil {
					model[name] = &member{SA: &sa.SA{Name: name}}
					l.put(hash(name), model[name])
				}
			},
			"drop": func(t *rapid.T) {
				if name := names.Draw(t, "name"); model[name] != nil {
					l.drop(hash(name), model[name])
					delete(model, name)
				}
			},
			"": func(t *rapid.T) {
				for _, name := range []string{"a", "b", "c", "d", "e"} {
					if m := l.find(hash(name), func(m *member) bool { return m.Name == name }); m != model[name] {
						t.Fatalf("%s: found %v, expected %v", name, m, model[name])
					}
				}
			},
		})
	})
}

// Every part of an identity counts.
func TestFingerprints(t *testing.T) {
	seen := map[fingerprint]sa.ID{}
	addrs := []netip.Addr{{}, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fd00::1")}
	for _, protocol := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, spi := range []sa.SPI{1, 1 << 24} {
			for _, dst := range addrs {
				for _, src := range addrs {
					id := sa.ID{Protocol: protocol, SPI: spi, Dst: dst, Src: src}
					if other, ok := seen[fingerprintOf(id)]; ok {
						t.Errorf("%s and %s are one", id, other)
					}
					seen[fingerprintOf(id)] = id
				}
			}
		}
	}
}

// A roster has what was put into it last, in that order; what stays keeps its origin, and
// places only grow.
func TestRosterReplaced(t *testing.T) {
	r := newRoster()
	sas := map[string]*sa.SA{}
	for i, name := range []string{"a", "b", "c", "d"} {
		sas[name] = &sa.SA{Name: name, SPI: uint32(i + 1), Protocol: sa.ESP}
	}
	r.add([]*sa.SA{sas["a"]}, ofFile)
	r.add([]*sa.SA{sas["b"]}, ofSocket)
	r.add([]*sa.SA{sas["c"]}, ofMirror)
	r.remove([]*sa.SA{sas["a"]})
	latest := r.latest
	rekeyed := *sas["c"]
	r.replace([][]*sa.SA{{sas["d"]}, {&rekeyed}, {sas["b"]}})
	var got []string
	for _, m := range r.order {
		got = append(got, fmt.Sprint(m.Name, " ", m.origin))
		if m.place <= latest || m.gone || r.name(m.Name) != m || r.id(m.ID()) != m {
			t.Errorf("%s is at %d, gone %v, or not found", m.Name, m.place, m.gone)
		}
		latest = m.place
	}
	if want := "[d file c file b socket]"; fmt.Sprint(got) != want || r.len() != 3 || r.name("a") != nil || len(r.names.first) != 3 || len(r.ids.first) != 3 {
		t.Errorf("%v of %d, expected %s", got, r.len(), want)
	}
}
