package diagnosis_test

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/account"
	"tapsec/internal/diagnosis"
	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// Every cause is one of a scene, and has a section of its own on the page.
func TestEveryCause(t *testing.T) {
	tried := map[string]bool{string(diagnosis.Damaged): true, // TestSome
		string(diagnosis.NotShown): true, string(diagnosis.ShownThough): true} // TestTwins
	for _, c := range scenes() {
		tried[string(c.cause)] = true
	}
	page, err := os.ReadFile("../../docs/diagnosis.md")
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, m := range regexp.MustCompile("(?m)^### `([a-z0-9-]+)`: (.*)$").FindAllStringSubmatch(string(page), -1) {
		on = append(on, m[1]+": "+m[2])
	}
	source, err := os.ReadFile("cause.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)Cause = "([a-z0-9-]+)" +// (.*)$`).FindAllStringSubmatch(string(source), -1) {
		if !tried[m[1]] {
			t.Errorf("no scene for %s", m[1])
		}
		want = append(want, m[1]+": "+m[2])
	}
	if !slices.Equal(on, want) {
		t.Errorf("docs/diagnosis.md has the causes\n%s\nwant\n%s", strings.Join(on, "\n"), strings.Join(want, "\n"))
	}
}

// What somebody sealed whose key is known to nobody is taken for nothing that it is
// not, and of what is good nothing is said: all suites, both modes, each SA beside
// those of all other suites.
func TestNothingFalse(t *testing.T) {
	for _, mode := range []change{func(*sa.SA) {}, transport} {
		var held, strangers []*sa.SA
		for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
			for i, su := range sa.Suites(p) {
				spi := named(p.String()+" "+su.Name, uint32(p)<<16+uint32(i))
				own := byte(i)*2 + byte(p)
				held = append(held, made(p, su.Name, []change{mode, key(own), spi}))
				strangers = append(strangers, made(p, su.Name, []change{mode, key(own + 1), spi}))
			}
		}
		g := newGallery(t, held...)
		for _, s := range held {
			g.send(s, 0, 2, nil)
		}
		g.want()
		g = newGallery(t, held...)
		for _, s := range strangers {
			g.send(s, 0, 2, nil)
		}
		found := g.All()
		if len(found) != len(held) {
			t.Errorf("%d findings for %d SAs", len(found), len(held))
		}
		for _, f := range found {
			if f.Certain || f.Cause != string(diagnosis.NothingFound) {
				t.Errorf("%+v", f)
			}
		}
	}
}

// gallery is a NIC and the Case of what it judges.
type gallery struct {
	t    *testing.T
	sad  *pipeline.SAD
	pipe *pipeline.Pipeline
	n    int // frames
	*diagnosis.Case
}

func newGallery(t *testing.T, held ...*sa.SA) *gallery {
	t.Helper()
	full, err := sa.ProfileByName("full")
	if err != nil {
		t.Fatal(err)
	}
	g := &gallery{t: t, sad: pipeline.NewSAD(full, 1)}
	for _, s := range held {
		if _, err := g.sad.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	g.pipe = pipeline.New(g.sad, pipeline.Options{})
	g.Case = diagnosis.New(g.sad.List(), nil)
	return g
}

// send has the NIC judge frames from..to that s sealed.
func (g *gallery) send(s *sa.SA, from, to int, spoil func([]byte) []byte) {
	g.t.Helper()
	c := scene{sent: s, spoil: spoil}
	for i := from; i < to; i++ {
		g.see(forge.AppendFrame(nil, c.packet(i)))
	}
}

func (g *gallery) see(frame []byte) {
	g.t.Helper()
	g.n++
	see(g.t, g.Case, g.pipe, frame, 0, g.n)
}

func (g *gallery) want(causes ...diagnosis.Cause) []account.Finding {
	g.t.Helper()
	found := g.All()
	var got []string
	for _, f := range found {
		got = append(got, f.Cause)
	}
	var want []string
	for _, c := range causes {
		want = append(want, string(c))
	}
	if !slices.Equal(got, want) {
		g.t.Errorf("found %+v, want %v", found, want)
	}
	return found
}

func flip(p []byte) []byte { p[len(p)-1] ^= 1; return p }

// Some frames of an SA fail: damaged ones among good ones; all from a rekey on; and
// both, where the end of the capture tells of the rekey.
func TestSome(t *testing.T) {
	a, b := esp(), esp(key(9), named("site-b", 7))
	g := newGallery(t, a, b)
	g.send(a, 0, 20, nil)
	g.send(a, 20, 21, flip)
	g.send(a, 21, 22, nil)
	found := g.want(diagnosis.Damaged)
	if len(found) == 1 && (found[0].Certain || !strings.HasPrefix(found[0].Sentence, "1 of 22 frames of site-a fails while the others are good")) {
		t.Errorf("%+v", found)
	}

	g = newGallery(t, a, b)
	g.send(a, 0, 20, nil)
	g.send(esp(key(80)), 0, 30, nil)
	found = g.want(diagnosis.NothingFound)
	if want := "The last 30 of 50 frames of site-a fail, "; len(found) == 1 && !strings.HasPrefix(found[0].Sentence, want) {
		t.Errorf("%q, want %q", found[0].Sentence, want)
	}

	g = newGallery(t, a, b)
	g.send(a, 0, 20, nil)
	g.send(a, 20, 30, flip)
	g.send(esp(key(9)), 0, 500, nil)
	found = g.want(diagnosis.OtherKey, diagnosis.NothingFound)
	if want := "510 of 530 frames of site-a fail: with the key of site-b, 4 of the 8 frames tried verify"; len(found) == 2 && found[0].Sentence != want {
		t.Errorf("%q, want %q", found[0].Sentence, want)
	}
	if end := "verifies 4 of the 8 tried: those have another cause, or more than one"; len(found) == 2 && !strings.HasSuffix(found[1].Sentence, end) {
		t.Errorf("%q, want %q", found[1].Sentence, end)
	}
	if again := g.All(); !slices.Equal(again, found) {
		t.Errorf("asked again: %+v", again)
	}
}

// One frame is one frame.
func TestOne(t *testing.T) {
	g := newGallery(t, esp(), esp(key(9), named("site-b", 7)))
	g.send(esp(key(9)), 0, 1, nil)
	g.send(esp(key(9), named("", 99)), 0, 1, nil)
	found := g.want(diagnosis.OtherKey, diagnosis.UnknownSPI)
	for i, want := range []string{
		"1 of 1 frame of site-a fails: with the key of site-b, the 1 frame tried verifies",
		"1 frame of esp SPI 0x00000063 from 192.0.2.1 to 192.0.2.2 matches no SA: with the key of site-b, the 1 frame tried verifies",
	} {
		if i < len(found) && found[i].Sentence != want {
			t.Errorf("%q, want %q", found[i].Sentence, want)
		}
	}
}

// Whatever comes, memory stays within its bounds: more SPIs than are told apart,
// frames as long as there are, of more SAs than there is room for. The last SA is
// explained all the same, since what there is no room for is only counted.
func TestBounds(t *testing.T) {
	a, b := esp(), esp(key(9), named("site-b", 7))
	g := newGallery(t, a, b)
	for i := range 2 * diagnosis.MaxUnknown {
		g.send(esp(key(9), named("", uint32(0x100000+i))), 0, 1, nil)
	}
	if n := len(g.All()); n != diagnosis.MaxUnknown {
		t.Errorf("%d findings for headers without an SA, want %d", n, diagnosis.MaxUnknown)
	}
	var held []*sa.SA
	for i := range diagnosis.MaxBytes/(4*60000) + 1 {
		held = append(held, esp(named(fmt.Sprint(i), uint32(0x8000+i))))
	}
	g = newGallery(t, append(held, b)...)
	for _, s := range held {
		long := scene{sent: esp(key(9), named("", s.SPI)), plain: func([]byte) []byte {
			return forge.UDP(nil, netip.AddrPortFrom(hostA, 1), netip.AddrPortFrom(hostB, 2), make([]byte, 60000))
		}}
		for i := range 10 {
			g.see(forge.AppendFrame(nil, long.packet(i)))
		}
	}
	if n := g.Kept(); n > diagnosis.MaxBytes || n < diagnosis.MaxBytes-70000 {
		t.Errorf("%d bytes of frames are kept, want %d and no more", n, diagnosis.MaxBytes)
	}
	if n := len(g.All()); n > len(held) || n < len(held)/2-1 {
		t.Errorf("%d findings for %d SAs", n, len(held))
	}
}

// There are as many trials as the bound says, and not one more: for an SA beside
// more keys than can be tried on its frames.
func TestTries(t *testing.T) {
	held := []*sa.SA{esp(named("site-a", 0x7000))}
	for i := range 600 {
		held = append(held, esp(named(fmt.Sprintf("n%03d", i), uint32(0x8000+i)), material(func(k []byte) []byte {
			k[0], k[1] = byte(i), byte(i>>8)+50
			return k
		})))
	}
	g := newGallery(t, held...)
	g.send(esp(key(80), named("", 0x7000)), 0, 20, nil)
	found := g.want(diagnosis.NothingFound)
	if want := fmt.Sprintf("none of %d near misses", diagnosis.MaxTries); len(found) == 1 && !strings.Contains(found[0].Sentence, want) {
		t.Errorf("%q, want %s", found[0].Sentence, want)
	}
}

// Of good frames the first few are looked into.
func TestLooked(t *testing.T) {
	c := scene{sent: esp(), held: []*sa.SA{esp()}, plain: partial}
	if found := c.run(t, 20); len(found) != 1 || !strings.Contains(found[0].Sentence, "8 of the 8 ") {
		t.Errorf("%+v", found)
	}
}

// A good frame costs no memory.
func TestGoodFramesCostNothing(t *testing.T) {
	a := esp()
	g := newGallery(t, a)
	g.send(a, 0, 20, nil)
	c := scene{sent: a}
	frame := forge.AppendFrame(nil, c.packet(30))
	body, trailer, err := status.Split(g.pipe.Process(frame))
	if err != nil {
		t.Fatal(err)
	}
	frame30 := account.FrameOf(body, &trailer, netip.Addr{}, netip.Addr{}, 0)
	if n := testing.AllocsPerRun(100, func() { g.See(body, &frame30, 30) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// No sentence shows a byte of a key.
func TestNoKeys(t *testing.T) {
	for _, c := range scenes() {
		for _, f := range c.run(t, sent) {
			for _, s := range append(append(c.held, c.former...), c.sent) {
				for _, k := range []sa.Key{s.EncryptionKey, s.IntegrityKey} {
					if b := fmt.Sprintf("%x", k.Bytes()); len(b) >= 8 && strings.Contains(strings.ToLower(f.Sentence), b[:8]) {
						t.Errorf("%s shows a key", c.name)
					}
				}
			}
		}
	}
}
