package soak

import (
	"io"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
)

// The set of numbers against a map.
func TestNumbers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set, model := numbers{}, map[uint64]bool{}
		for _, x := range rapid.SliceOf(rapid.Uint64Range(0, 3*pageBits)).Draw(rt, "numbers") {
			x += 1<<63 - pageBits
			if set.has(x) != model[x] || set.add(x) == model[x] || !set.has(x) {
				rt.Fatalf("%d: the set differs from the model %v", x, model)
			}
			model[x] = true
		}
	})
}

// judged runs what is to be judged in a campaign that has no laboratory, and
// returns the kinds of violations.
func judged(do func(c *campaign)) []string {
	c := newCampaign(Options{Seed: 1, Log: io.Discard})
	c.cable = &cable{c: c}
	for number := range c.hosts {
		c.hosts[number] = &host{c: c, number: number}
	}
	do(c)
	return slices.Sorted(maps.Keys(c.report.Violations))
}

// plain is the frame of a datagram from host a, in clear.
func plain(path int, payload []byte) []byte {
	at := func(host int) netip.AddrPort { return netip.AddrPortFrom(paths[path].addr(path, host), soakPort) }
	return ethernet(0, forge.UDP(nil, at(0), at(1), payload))
}

// sealedAs seals it with the SAs of a path.
func sealedAs(t *testing.T, c *campaign, path int) []byte {
	t.Helper()
	var sas []*sa.SA
	for _, a := range c.sas.live[line{path, 0}] {
		suite, err := sa.ParseSuite(sa.ESP, a.layer.suite)
		if err != nil {
			t.Fatal(err)
		}
		mode := sa.Transport
		if a.layer.tunnel {
			mode = sa.Tunnel
		}
		sas = append(sas, &sa.SA{Name: a.name, SPI: a.spi, Src: a.src, Dst: a.dst, Protocol: sa.ESP, Mode: mode, Suite: suite,
			EncryptionKey: sa.NewKey(a.key), IntegrityKey: sa.NewKey(a.integrity), ESN: a.layer.esn, PadCheck: true})
	}
	s, err := outbound.NewSealer(nil, sas...)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := s.Seal(nil, plain(path, datagram(line{path, 0}, 0, 100))[14:])
	if err != nil {
		t.Fatal(err)
	}
	return ethernet(0, packet)
}

// The judge on the wire sees what is in clear, a number and an IV that come twice,
// also inside a tunnel, and SPIs of nobody.
func TestCable(t *testing.T) {
	for number := range paths {
		name := paths[number].name
		is := func(what string, got []string, want ...string) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: %v, want %v", name, what, got, want)
			}
		}
		is("once", judged(func(c *campaign) { c.cable.judge(0, sealedAs(t, c, number)) }))
		again := []string{"iv", "number"}
		if name == "cbc" || name == "tunnel4" {
			again = []string{"number"} // IVs are random
		}
		is("sealed anew", judged(func(c *campaign) {
			c.cable.judge(0, sealedAs(t, c, number))
			c.cable.judge(0, sealedAs(t, c, number))
		}), again...)
		is("the other host's", judged(func(c *campaign) { c.cable.judge(1, sealedAs(t, c, number)) }), "wire")
		is("in clear", judged(func(c *campaign) { c.cable.judge(0, plain(number, datagram(line{number, 0}, 0, 100))) }), "clear")
	}
}

// The judge at a stack sees a datagram that comes twice, that was never sent, that
// differs in any byte, that is another path's, and what is still sealed.
func TestStack(t *testing.T) {
	l := line{1, 0}
	is := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	arrive := func(c *campaign, path int, payload []byte) { c.hosts[1].judge(plain(path, payload)) }
	is("sent", judged(func(c *campaign) {
		n, _ := c.ledgers[l].send()
		arrive(c, 1, datagram(l, n, 100))
	}))
	is("twice", judged(func(c *campaign) {
		n, _ := c.ledgers[l].send()
		arrive(c, 1, datagram(l, n, 100))
		arrive(c, 1, datagram(l, n, 100))
	}), "arrival")
	is("never sent", judged(func(c *campaign) { arrive(c, 1, datagram(l, 0, 100)) }), "arrival")
	for at := range 100 {
		is("altered", judged(func(c *campaign) {
			n, _ := c.ledgers[l].send()
			b := datagram(l, n, 100)
			b[at] ^= 4
			arrive(c, 1, b)
		}), "altered")
	}
	is("cut", judged(func(c *campaign) {
		n, _ := c.ledgers[l].send()
		arrive(c, 1, datagram(l, n, 100)[:99])
	}), "altered")
	is("another path's", judged(func(c *campaign) {
		n, _ := c.ledgers[l].send()
		arrive(c, 0, datagram(l, n, 100))
	}), "altered")
	is("sealed", judged(func(c *campaign) { c.hosts[1].judge(sealedAs(t, c, 0)) }), "stack")
	is("to its sender", judged(func(c *campaign) { c.hosts[0].judge(plain(1, datagram(l, 0, 100))) }), "stack")
}

// A log line with eight digits of a key is found.
func TestSecret(t *testing.T) {
	c := newCampaign(Options{Seed: 1, Log: io.Discard})
	a := c.sas.live[line{0, 0}][0]
	if text := a.text(&set{}); !c.sas.shows(text) {
		t.Errorf("no key was found in %q", text)
	}
	if text := "spi=0x00001001 seq=12345678 time=2026-11-28T10:00:00"; c.sas.shows(text) {
		t.Errorf("a key was found in %q", text)
	}
}
