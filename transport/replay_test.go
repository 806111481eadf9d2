package transport_test

import (
	"testing"

	"tapsec/internal/lab/forge"
	window "tapsec/internal/replay"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/transport"
)

// both runs a test with a NIC that holds all SAs, and with software alone.
func both(t *testing.T, s setup, test func(t *testing.T, h *host)) {
	t.Helper()
	t.Run("NIC", func(t *testing.T) { test(t, newHost(t, s)) })
	s.prepare = func(d *pipeline.SAD) { d.Activate(false) }
	t.Run("software", func(t *testing.T) { test(t, newHost(t, s)) })
}

// Contract, The transport, step 3: a number passes once; 0 never does, nor what is older than the
// window.
func TestWindow(t *testing.T) {
	for _, size := range []uint32{0, 32, 64, 1024, 65536} {
		esp := espSA(sa.Transport, func(s *sa.SA) { s.Window = size })
		both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
			width := uint64(max(size, 32))
			if size == 0 {
				width = sa.DefaultWindow
			}
			frame := func(n uint64) []byte { return framed(once(t, n, plain4(), esp)) }
			h.drops(frame(0), replay)
			h.delivers(frame(1), framed(plain4()))
			h.drops(frame(1), replay)
			h.delivers(frame(width+2), framed(plain4()))
			h.drops(frame(2), replay)
			h.delivers(frame(3), framed(plain4()))
			h.drops(frame(3), replay)
			h.drops(frame(0), replay)
			want := window.State{Size: uint32(width), Top: width + 2, Seen: 3, Gaps: width - 1, Replays: 2, Late: 3}
			if got := h.window(esp.Name); got != want {
				t.Errorf("window %+v, want %+v", got, want)
			}
		})
	}
}

func TestReplayOff(t *testing.T) {
	esp := espSA(sa.Transport, func(s *sa.SA) { s.ReplayOff = true })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		for _, n := range []uint64{5, 5, 1000, 1, 5} {
			h.delivers(framed(once(t, n, plain4(), esp)), framed(plain4()))
		}
		h.drops(framed(once(t, 0, plain4(), esp)), replay)
	})
}

// layered are two portions, or two headers of one, innermost first. numbers seals
// a packet with different numbers, and damages it inside.
func layered() map[string][]*sa.SA {
	return map[string][]*sa.SA{
		"nested":    {espSA(sa.Transport), espSA(sa.Tunnel)},
		"AH in AH":  {ahSA(sa.Transport), ahSA(sa.Tunnel)},
		"AH+ESP":    bundle(sa.Transport),
		"AH ESP":    {espSA(sa.Transport), ahSA(sa.Transport)},
		"two deep":  {espSA(sa.Tunnel), espSA(sa.Tunnel, spi(0x2004))},
		"ESP on AH": {ahSA(sa.Transport), espSA(sa.Transport)},
	}
}

func numbered(t *testing.T, sas []*sa.SA, inner, outer uint64, damage bool) []byte {
	t.Helper()
	s := sealer(t, sas...)
	s.SetNumber(0, inner)
	s.SetNumber(1, outer)
	if !damage {
		return framed(sealed(t, s, plain4()))
	}
	return framed(sealed(t, s.Stack(1), flipped(sealed(t, s.Stack(0), plain4()))))
}

// Contract, The transport, step 3: each header's number goes to its own SA's window, outermost
// first, also when the frame is dropped for another reason; the first refusal
// ends the frame.
func TestWindows(t *testing.T) {
	for name, sas := range layered() {
		t.Run(name, func(t *testing.T) {
			stack := sas
			if sas[1].Bundle != "" { // the AH over a damaged ESP is applied by itself
				alone := *sas[1]
				alone.Bundle = ""
				stack = []*sa.SA{sas[0], &alone}
			}
			both(t, setup{sas: sas}, func(t *testing.T, h *host) {
				seen := func(inner, outer uint64) {
					t.Helper()
					if i, o := h.window(sas[0].Name).Seen, h.window(sas[1].Name).Seen; i != inner || o != outer {
						t.Errorf("windows have seen %d inside and %d outside, want %d and %d", i, o, inner, outer)
					}
				}
				frame := func(inner, outer uint64) []byte { return numbered(t, sas, inner, outer, false) }
				h.delivers(frame(1, 11), framed(plain4()))
				seen(1, 1)
				h.drops(frame(1, 11), replay) // the outer one ends it
				if w := h.window(sas[0].Name); w.Replays != 0 {
					t.Error("the inner window was asked behind a refused outer number")
				}
				// A good inner frame does not bring the outer number back to life.
				h.drops(frame(2, 11), replay)
				seen(1, 1)
				h.delivers(frame(2, 12), framed(plain4()))
				// A replayed inner number takes its outer one with it.
				h.drops(frame(2, 13), replay)
				seen(2, 3)
				h.drops(frame(3, 13), replay)
				// Nor does a bad inner frame keep the outer number free.
				h.drops(numbered(t, stack, 4, 14, true), icv)
				seen(2, 4)
				h.drops(frame(4, 14), replay)
				h.delivers(frame(4, 15), framed(plain4()))
				seen(3, 5)
				// A bad outer frame touches no window.
				h.drops(flipped(frame(5, 16)), icv)
				seen(3, 5)
				h.delivers(frame(5, 16), framed(plain4()))
			})
		})
	}
}

// Contract, The transport, step 3: windows move also where what was dropped is good but not wanted.
func TestWindowOfDropped(t *testing.T) {
	esp, tun := espSA(sa.Transport), espSA(sa.Tunnel)
	wrong := func(b []byte) []byte { b[24] ^= 1; return b } // the IPv4 header checksum
	inside := func(t *testing.T, n uint64) []byte {
		s := sealer(t, esp, tun)
		s.SetNumber(0, n)
		s.SetNumber(1, n)
		p := sealed(t, s.Stack(0), plain4())
		p[10] ^= 1
		return framed(sealed(t, s.Stack(1), p))
	}
	for name, c := range map[string]struct {
		frame  func(t *testing.T, n uint64) []byte
		reason transport.Reason
		policy []sa.Policy
	}{
		"checksum outside": {func(t *testing.T, n uint64) []byte { return wrong(framed(once(t, n, plain4(), esp, tun))) }, transport.IPChecksum, nil},
		"checksum inside":  {inside, transport.IPChecksum, nil},
		"policy": {func(t *testing.T, n uint64) []byte { return framed(once(t, n, plain4(), esp, tun)) }, transport.Discard,
			[]sa.Policy{{Action: sa.Discard}}},
		"dummy": {func(t *testing.T, n uint64) []byte {
			return framed(mangled(t, n, forge.NextHeader(59), plain4(), esp, tun))
		}, transport.Dummy, nil},
		"pad": {func(t *testing.T, n uint64) []byte { return framed(mangled(t, n, forge.ZeroPad, plain4(), esp, tun)) }, transport.Padding, nil},
		"pad length": {func(t *testing.T, n uint64) []byte {
			return framed(mangled(t, n, forge.PadLength(255), plain4(), esp, tun))
		},
			transport.Length, nil},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: []*sa.SA{esp, tun}, policy: c.policy}, func(t *testing.T, h *host) {
				h.drops(c.frame(t, 7), c.reason)
				if i, o := h.window(esp.Name), h.window(tun.Name); i.Seen != 1 || o.Seen != 1 || i.Top != 7 || o.Top != 7 {
					t.Errorf("windows %+v and %+v", i, o)
				}
				h.drops(c.frame(t, 7), replay)
			})
		})
	}
}

// However deep the headers lie, and whoever opens them: each number goes to its window
// though the packet around them was refused already.
func TestWindowsBeneathRefused(t *testing.T) {
	sas := []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel), espSA(sa.Tunnel, spi(0x2004)), ahSA(sa.Tunnel)}
	both(t, setup{sas: sas}, func(t *testing.T, h *host) {
		frame := framed(once(t, 7, plain4(), sas...))
		frame[24] ^= 1 // the IPv4 header checksum
		h.drops(frame, transport.IPChecksum)
		for s := range h.States() {
			if s.Window.Top != 7 {
				t.Errorf("%s: window %+v", s.Name, s.Window)
			}
		}
	})
}

// Contract row 25: with ESN a replay 2^31 or more numbers old is completed to
// another number, and fails its ICV.
func TestOldReplay(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		old := framed(once(t, 5, plain4(), esp))
		h.delivers(old, framed(plain4()))
		h.drops(old, replay)
		h.delivers(framed(once(t, 1<<31, plain4(), esp)), framed(plain4()))
		h.drops(old, replay)
		h.delivers(framed(once(t, 1<<31+6, plain4(), esp)), framed(plain4()))
		h.drops(old, icv)
	})
}

// Contract, The transport, step 3: across 2^32 the window works on the whole number.
func TestWindowESN(t *testing.T) {
	esp := espSA(sa.Transport, esn)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		for _, n := range []uint64{1<<31 - 1, 1<<32 - 3, 1<<32 + 2, 1<<32 - 1, 1 << 32, 1<<32 + 1} {
			h.delivers(framed(once(t, n, plain4(), esp)), framed(plain4()))
			h.drops(framed(once(t, n, plain4(), esp)), replay)
		}
		if s := h.state(esp.Name); s.T != 1<<32+2 || s.Window.Top != 1<<32+2 {
			t.Errorf("T %#x, window %+v", s.T, s.Window)
		}
	})
}

// Contract, The transport, step 8: reordering costs no good frame its place in the window.
func TestReordered(t *testing.T) {
	esp := espSA(sa.Transport)
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		for _, n := range []uint64{64, 3, 63, 1, 2, 40, 65, 4} {
			h.delivers(framed(once(t, n, plain4(), esp)), framed(plain4()))
		}
	})
}
