package pipeline_test

import (
	"fmt"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// stack is one portion in one layout.
type stack struct {
	name string
	sas  []*sa.SA // innermost first
}

// layouts are all ways to protect one portion. Unbundled, a transport-mode AH
// stands over ESP of either mode (contract, Bundles).
func layouts(mode sa.Mode, changes ...change) []stack {
	e := espSA(mode, changes...)
	all := []stack{
		{"ESP", []*sa.SA{e}},
		{"AH", []*sa.SA{ahSA(mode, changes...)}},
		{"AH+ESP", bundle(mode, changes...)},
	}
	free := ahSA(sa.Transport, changes...)
	free.Src, free.Dst = e.Src, e.Dst
	return append(all, stack{"AH,ESP", []*sa.SA{espSA(mode, changes...), free}})
}

var words = map[sa.Mode]struct{ ah, esp status.Word }{
	sa.Transport: {0x00020002, 0x00030002},
	sa.Tunnel:    {0x00040002, 0x00050002},
}

// verdicts are the cases of one layout that stands alone: good, AH bad, ESP bad.
func verdicts(c frameCase, mode sa.Mode, sas []*sa.SA) []frameCase {
	outer := sas[len(sas)-1]
	hasAH, hasESP := outer.Protocol == sa.AH, sas[0].Protocol == sa.ESP
	c.sas = sas
	fine := c
	fine.name, fine.word, fine.reason = c.name+"/good", 0x00000002, status.Verified
	fine.records = slices.Repeat([]outcome{good}, len(sas))
	all := []frameCase{fine}
	if hasAH {
		bad := c
		bad.name, bad.word, bad.reason = c.name+"/AH bad", words[mode].ah, status.AHICV
		bad.spoil, bad.records = flipLast, []outcome{badAH}
		if hasESP { // contract row 19: ESP is then not tried
			bad.records = []outcome{badAH, notTried}
		}
		all = append(all, bad)
	}
	if hasESP {
		bad := c
		bad.name, bad.word, bad.reason = c.name+"/ESP bad", words[mode].esp, status.ESPICV
		bad.spoil, bad.records = flipLast, []outcome{badESP}
		if hasAH { // contract row 20: falsified before the AH was made
			bad.spoil, bad.mangle = nil, map[*sa.SA]forge.Mangle{outer: flipLast}
			bad.records = []outcome{good, badESP}
		}
		all = append(all, bad)
	}
	return all
}

// One portion, in every mode, layout and pair of IP versions, without, with one
// and with two VLAN tags (contract rows 5 to 10 and 18 to 20; contract, headers
// in detail: tags).
func TestOnePortion(t *testing.T) {
	tags := [][]uint32{nil, {0x81000064}, {0x88a80064, 0x81000065}}
	for i, tag := range tags {
		for _, l := range layouts(sa.Transport) {
			c := frameCase{name: fmt.Sprintf("transport %s/%d tags/4", l.name, i), tags: tag}
			runAll(t, verdicts(c, sa.Transport, l.sas))
		}
		for _, l := range layouts(sa.Transport, v6) {
			c := frameCase{name: fmt.Sprintf("transport %s/%d tags/6", l.name, i), tags: tag, packet: plain6()}
			runAll(t, verdicts(c, sa.Transport, l.sas))
		}
		for _, inner := range [][]byte{plain4(), plain6()} {
			for _, l := range layouts(sa.Tunnel) {
				c := frameCase{name: fmt.Sprintf("tunnel %s/%d tags/%d in 4", l.name, i, inner[0]>>4), tags: tag, packet: inner}
				runAll(t, verdicts(c, sa.Tunnel, l.sas))
			}
			for _, l := range layouts(sa.Tunnel, v6) {
				c := frameCase{name: fmt.Sprintf("tunnel %s/%d tags/%d in 6", l.name, i, inner[0]>>4), tags: tag, packet: inner}
				runAll(t, verdicts(c, sa.Tunnel, l.sas))
			}
		}
	}
}

// nest puts a transport portion into a tunnel: both good, and one failure at a
// time.
func nest(name string, packet []byte, inner, outer []*sa.SA) []frameCase {
	c := frameCase{packet: packet, sas: slices.Concat(inner, outer)}
	fill := func(what string, word status.Word, reason status.Reason, records []outcome) frameCase {
		c := c
		c.name, c.word, c.reason, c.records = name+"/"+what, word, reason, records
		return c
	}
	fine := slices.Repeat([]outcome{good}, len(outer))
	all := []frameCase{fill("both good", 0x00000006, status.Verified, slices.Repeat([]outcome{good}, len(c.sas)))}
	tunnel := outer[0] // seals the inner packet
	flip := flipInside
	if tunnel.Protocol == sa.AH {
		flip = flipLast
	}
	top := inner[len(inner)-1]
	if top.Protocol == sa.AH { // contract row 12
		bad := append(slices.Clone(fine), badAH)
		if len(inner) > 1 {
			bad = append(bad, notTried)
		}
		f := fill("transport AH bad", 0x00020006, status.AHICV, bad)
		f.mangle = map[*sa.SA]forge.Mangle{tunnel: flip}
		all = append(all, f)
	}
	if inner[0].Protocol == sa.ESP { // contract row 13
		f := fill("transport ESP bad", 0x00030006, status.ESPICV, append(slices.Clone(fine), badESP))
		f.mangle = map[*sa.SA]forge.Mangle{tunnel: flip}
		if len(inner) > 1 {
			f.mangle = map[*sa.SA]forge.Mangle{top: flipLast}
			f.records = append(slices.Clone(fine), good, badESP)
		}
		all = append(all, f)
	}
	return append(all, nestBadTunnel(fill, outer)...)
}

// Behind a bad tunnel nothing is looked at (contract row 14).
func nestBadTunnel(fill func(string, status.Word, status.Reason, []outcome) frameCase, outer []*sa.SA) (all []frameCase) {
	outermost := outer[len(outer)-1]
	if outermost.Protocol == sa.AH {
		bad := []outcome{badAH}
		if len(outer) > 1 {
			bad = append(bad, notTried)
		}
		f := fill("tunnel AH bad", 0x00040002, status.AHICV, bad)
		f.spoil = flipLast
		all = append(all, f)
	}
	if outer[0].Protocol == sa.ESP {
		f := fill("tunnel ESP bad", 0x00050002, status.ESPICV, []outcome{badESP})
		f.spoil = flipLast
		if len(outer) > 1 {
			f.spoil, f.mangle = nil, map[*sa.SA]forge.Mangle{outermost: flipLast}
			f.records = []outcome{good, badESP}
		}
		all = append(all, f)
	}
	return all
}

// A transport portion inside a tunnel in every layout of both and every pair of
// IP versions (contract rows 11 to 14 and 33). The NULL cipher and AH leave the
// inside of a bad tunnel readable, and still nothing is looked at.
func TestTunnelAndTransport(t *testing.T) {
	families := []struct {
		name   string
		change []change
	}{{"4", nil}, {"6", []change{v6}}}
	for _, fi := range families {
		packet := plain4()
		if fi.name == "6" {
			packet = plain6()
		}
		for _, fo := range families {
			outers := append(layouts(sa.Tunnel, fo.change...),
				stack{"NULL", []*sa.SA{espSA(sa.Tunnel, append(fo.change, testkit.Suite("null-sha256"))...)}})
			for _, outer := range outers {
				for _, inner := range layouts(sa.Transport, fi.change...) {
					if outer.name == "AH,ESP" && inner.name != "ESP" {
						continue // the SPI of its free AH is that of the inner AH
					}
					name := fmt.Sprintf("%s (%s) in %s (%s)", inner.name, fi.name, outer.name, fo.name)
					runAll(t, nest(name, packet, inner.sas, outer.sas))
				}
			}
		}
	}
}

// The same failure has another name in the other portion: a NIC that always
// says TUNNEL_, or always TRANSPORT_, is found out (contract rows 7 to 10, 12
// to 14).
func TestFailureNamesItsPortion(t *testing.T) {
	codes := map[string]status.Code{}
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, a := range []*sa.SA{espSA(mode), ahSA(mode)} {
			c := frameCase{sas: []*sa.SA{a}, spoil: flipLast}
			_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
			codes[a.Name] = trailer.Word.Code()
		}
	}
	inner, outer := espSA(sa.Transport), espSA(sa.Tunnel)
	c := frameCase{sas: []*sa.SA{inner, outer}, mangle: map[*sa.SA]forge.Mangle{outer: flipInside}}
	_, trailer := process(t, c.nic(t), pipeline.Options{}, c.seal(t).frame)
	codes["inner esp"] = trailer.Word.Code()
	for name, want := range map[string]status.Code{
		"esp-transport": status.TransportESPAuthFailed, "ah-transport": status.TransportAHAuthFailed,
		"esp-tunnel": status.TunnelESPAuthFailed, "ah-tunnel": status.TunnelAHAuthFailed,
		"inner esp": status.TransportESPAuthFailed,
	} {
		if codes[name] != want {
			t.Errorf("%s: %s, want %s", name, codes[name], want)
		}
	}
}
