package transport_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/transport"
)

// esnStacks are the places in which an ESN SA may stand; lost is the SA whose
// numbers are lost.
func esnStacks() map[string]struct {
	sas  []*sa.SA
	lost int
} {
	esp, tun, pair := espSA(sa.Transport, esn), espSA(sa.Tunnel), bundle(sa.Transport, esn)
	inner := bundle(sa.Transport, esn)
	return map[string]struct {
		sas  []*sa.SA
		lost int
	}{
		"transport":            {[]*sa.SA{esp}, 0},
		"AH":                   {[]*sa.SA{ahSA(sa.Transport, esn)}, 0},
		"inner of a tunnel":    {[]*sa.SA{esp, tun}, 0},
		"the tunnel":           {[]*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel, esn)}, 1},
		"bundle, AH":           {pair, 1},
		"bundle, ESP":          {pair, 0},
		"bundle in a tunnel":   {append(slices.Clone(inner), tun), 1},
		"a bundle's ESP in it": {append(slices.Clone(inner), tun), 0},
	}
}

// Contract, The transport, step 4, RFC 4303 appendix A3: after a loss of more than 2^32 packets 31
// frames fail, and the next one is tried with the next four high halves. The NIC
// is told; where it cannot be, later frames go through software.
func TestResync(t *testing.T) {
	for name, c := range esnStacks() {
		for _, deaf := range []bool{false, true} {
			for ahead := uint64(1); ahead <= 4; ahead++ {
				t.Run(fmt.Sprintf("%s/%d ahead, deaf %v", name, ahead, deaf), func(t *testing.T) {
					both(t, setup{sas: c.sas, deaf: deaf}, func(t *testing.T, h *host) {
						testResync(t, h, c.sas, c.lost, ahead, deaf)
					})
				})
			}
		}
	}
}

func testResync(t *testing.T, h *host, sas []*sa.SA, lost int, ahead uint64, deaf bool) {
	s := sealer(t, sas...)
	next := func() []byte { return framed(sealed(t, s, plain4())) }
	h.delivers(next(), framed(plain4()))
	s.SetNumber(lost, ahead<<32+100)
	for range 31 {
		h.drops(next(), icv)
	}
	if s := h.state(sas[lost].Name); s.T != 1 || s.Window.Top != 1 {
		t.Errorf("T %d, window %+v before anything proved right", s.T, s.Window)
	}
	h.noticed()
	h.delivers(next(), framed(plain4()))
	h.notices(transport.Resynchronised)
	want := ahead<<32 + 100 + 31
	if s := h.state(sas[lost].Name); s.T != want || s.Window.Top != want {
		t.Errorf("T %#x, window %+v, want both at %#x", s.T, s.Window, want)
	}
	told := fmt.Sprintf("[%s %d]", sas[lost].Name, ahead)
	if deaf {
		told = "[]"
	}
	if got := fmt.Sprint(h.updates); got != told {
		t.Errorf("the NIC was told %s, want %s", got, told)
	}
	for range 5 {
		h.delivers(next(), framed(plain4()))
	}
	if len(h.updates) > 1 {
		t.Errorf("the NIC was told %v", h.updates)
	}
}

// Both headers of a bundle have lost their numbers: first AH is found again, and
// then ESP.
func TestResyncBundle(t *testing.T) {
	pair := bundle(sa.Transport, esn)
	both(t, setup{sas: pair}, func(t *testing.T, h *host) {
		s := sealer(t, pair...)
		h.delivers(framed(sealed(t, s, plain4())), framed(plain4()))
		s.SetNumber(0, 2<<32+100)
		s.SetNumber(1, 1<<32+100)
		for range 62 {
			h.drops(framed(sealed(t, s, plain4())), icv)
		}
		for range 5 {
			h.delivers(framed(sealed(t, s, plain4())), framed(plain4()))
		}
	})
}

// Contract, The transport, step 4: 32 failures in a row. A frame that is good
// begins the count anew, so that forged ones between good ones never cost a try.
func TestResyncInARow(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		s := sealer(t, esp)
		next := func() []byte { return framed(sealed(t, s, plain4())) }
		for range 31 {
			h.drops(flipped(next()), icv)
		}
		h.delivers(next(), framed(plain4()))
		s.SetNumber(0, 1<<32+100)
		for range 31 {
			h.drops(next(), icv)
		}
		h.delivers(next(), framed(plain4()))
	})
}

// A reload that changes the window keeps the count of failures, and the pause after
// a try that was in vain.
func TestResyncAfterReload(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	wider := espSA(sa.Transport, esn, func(s *sa.SA) { s.Window = 1024 })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		s := sealer(t, esp)
		next := func() []byte { return framed(sealed(t, s, plain4())) }
		h.delivers(next(), framed(plain4()))
		s.SetNumber(0, 5<<32+100)
		for range 32 { // the last one is tried, and lies too far ahead
			h.drops(next(), icv)
		}
		if err := h.Replace([][]*sa.SA{{wider}}, nil, ours); err != nil {
			t.Fatal(err)
		}
		if size := h.window(esp.Name).Size; size != 1024 {
			t.Fatalf("a window of %d packets", size)
		}
		s.SetNumber(0, 4<<32+100)
		h.now = h.now.Add(time.Second - 1)
		h.drops(next(), icv)
		h.now = h.now.Add(1)
		h.delivers(next(), framed(plain4()))
	})
}

// Contract, The transport, step 4: one frame a second, four high halves and no more. What does not
// prove right changes nothing.
func TestResyncBounds(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		s := sealer(t, esp)
		next := func() []byte { return framed(sealed(t, s, plain4())) }
		h.delivers(next(), framed(plain4()))
		s.SetNumber(0, 5<<32+100)
		for range 40 {
			h.drops(next(), icv)
		}
		if s := h.state(esp.Name); s.T != 1 || s.Window.Top != 1 || h.updates != nil || s.Tally.Dropped[icv] != 40 || len(h.mirrored) != 40 {
			t.Errorf("T %d, window %+v, updates %v, dropped %d, %d in the mirror", s.T, s.Window, h.updates, s.Tally.Dropped[icv], len(h.mirrored))
		}
		s.SetNumber(0, 4<<32+100)
		h.now = h.now.Add(time.Second - 1)
		h.drops(next(), icv)
		h.now = h.now.Add(1)
		h.delivers(next(), framed(plain4()))
	})
}

// A good frame ends the count of failures, and a forged one is no reason to try.
func TestResyncCount(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		for n := uint64(1); n < 4; n++ {
			for range 31 {
				h.drops(framed(flipped(once(t, 1, plain4(), esp))), icv)
			}
			h.delivers(framed(once(t, n, plain4(), esp)), framed(plain4()))
		}
		for range 31 {
			h.drops(framed(mangled(t, 9, forge.ZeroPad, plain4(), espSA(sa.Transport, esn, spi(9)))), transport.NoSA)
		}
		h.delivers(framed(once(t, 9, plain4(), esp)), framed(plain4()))
	})
}

// Only a wrong ICV may come from a high half that is unknown: lengths that cannot be
// do not count.
func TestResyncLengths(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	short := once(t, 2, plain4(), esp)[:20+8+4]
	short[3] = byte(len(short))
	for range 40 {
		h.drops(framed(mended(short)), transport.Length)
	}
	h.drops(framed(once(t, 1<<32+100, plain4(), esp)), icv)
}

// Near the last high half of all, fewer lie ahead than are tried elsewhere.
func TestResyncNearEnd(t *testing.T) {
	esp := espSA(sa.Transport, esn, func(s *sa.SA) { s.SeqHigh = 1<<32 - 3 })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		s := sealer(t, esp)
		s.SetNumber(0, (1<<32-1)<<32+100)
		for range 31 {
			h.drops(framed(sealed(t, s, plain4())), icv)
		}
		h.delivers(framed(sealed(t, s, plain4())), framed(plain4()))
	})
}

// The last high half of all: nothing lies ahead of it.
func TestResyncEnd(t *testing.T) {
	esp := espSA(sa.Transport, esn, func(s *sa.SA) { s.SeqHigh = 1<<32 - 1 })
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	for range 40 {
		h.drops(framed(flipped(once(t, 1<<64-9, plain4(), esp))), icv)
	}
	h.delivers(framed(once(t, 1<<64-9, plain4(), esp)), framed(plain4()))
}

// A NIC that has not seen what went through software completes numbers with
// another high half. What it fails is software's, and the NIC is told.
func TestBehind(t *testing.T) {
	esp, tun, pair := espSA(sa.Transport, esn), espSA(sa.Tunnel, esn), bundle(sa.Transport, esn)
	half := bundle(sa.Transport)
	half[0].ESN = true
	for name, sas := range map[string][]*sa.SA{
		"transport": {esp}, "inside": {esp, espSA(sa.Tunnel)}, "tunnel": {tun}, "both": {esp, tun}, "bundle": pair,
		"a bundle's ESP": half, "a bundle's ESP in a tunnel": append(slices.Clone(half), tun),
	} {
		for _, deaf := range []bool{false, true} {
			t.Run(fmt.Sprint(name, deaf), func(t *testing.T) {
				h := newHost(t, setup{sas: sas, deaf: deaf})
				s := sealer(t, sas...)
				frame := func(n uint64) []byte {
					for i, a := range sas {
						if a.ESN { // the others count on
							s.SetNumber(i, n)
						}
					}
					return framed(sealed(t, s, plain4()))
				}
				h.delivers(frame(1), framed(plain4()))
				h.sad.Activate(false)
				h.delivers(frame(1<<31), framed(plain4()))
				h.delivers(frame(1<<32-4), framed(plain4()))
				h.sad.Activate(true)
				h.delivers(frame(1<<32+5), framed(plain4()))
				h.drops(frame(1<<32+5), replay)
				h.drops(flipped(frame(1<<32+6)), icv)
				h.delivers(frame(1<<32+7), framed(plain4()))
				for _, reason := range h.noticed() {
					if reason == transport.Resynchronised {
						t.Error("who was only behind has not lost the numbers")
					}
				}
				if told := len(h.updates) > 0; told == deaf {
					t.Errorf("the NIC was told %v", h.updates)
				}
			})
		}
	}
}

// Contract, Lifecycle, and row 26: the NIC asks for SAs back. It gets each once,
// and later frames go through software, in the same windows.
func TestRelease(t *testing.T) {
	esp, tun, frag := espSA(sa.Transport), espSA(sa.Tunnel), espSA(sa.Transport, spi(0x1009))
	h := newHost(t, setup{sas: []*sa.SA{esp, tun, frag}, prepare: func(d *pipeline.SAD) { d.ForcePressure(true) }})
	verdict := func(frame []byte, want transport.Verdict) {
		t.Helper()
		if _, v, r := h.receive(frame); v != want {
			t.Errorf("%s (%s), want %s", v, r, want)
		}
	}
	pending := h.annotate(framed(once(t, 2, plain4(), esp, tun)))
	verdict(framed(once(t, 1, plain4(), esp, tun)), transport.Deliver)
	if _, v, _ := h.Judge(pending); v != transport.Deliver {
		t.Error(v) // it was on its way when the SA was deleted
	}
	verdict(framed(once(t, 3, plain4(), esp, tun)), transport.Software)
	verdict(framed(once(t, 3, plain4(), esp, tun)), transport.Drop)
	verdict(framed(once(t, 4, plain4(), esp)), transport.Deliver)
	verdict(framed(once(t, 5, plain4(), esp)), transport.Software)
	verdict(framed(flipped(once(t, 1, plain4(), frag))), transport.Drop)
	if got := fmt.Sprint(h.deletes); got != "[esp-tunnel esp-transport esp-transport-1009]" {
		t.Errorf("deleted %s", got)
	}
	deaf := newHost(t, setup{sas: []*sa.SA{esp}, deaf: true, prepare: func(d *pipeline.SAD) { d.ForcePressure(true) }})
	deaf.delivers(framed(once(t, 1, plain4(), esp)), framed(plain4()))
}
