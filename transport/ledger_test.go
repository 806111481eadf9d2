package transport_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/test/testkit"
	"tapsec/transport"
)

// RFC 4303 section 3.4.3: what came once does not come again, though a
// configuration dropped the SA and brought it back, with another mode, name or
// window. ESN goes on where it was, in the NIC, too (contract, ESN).
func TestDroppedAndBack(t *testing.T) {
	esp := espSA(sa.Transport, func(s *sa.SA) { s.ESN = true })
	other := espSA(sa.Tunnel, func(s *sa.SA) { s.SPI++ })
	both(t, setup{sas: []*sa.SA{esp}}, func(t *testing.T, h *host) {
		const far = 5 << 32 // which nobody completes who begins anew
		for _, n := range []uint64{1, 1 << 31, 1 << 32, 3 << 31, 2 << 32, 5 << 31, 3 << 32, 7 << 31, 4 << 32, 9 << 31, far} {
			h.delivers(framed(once(t, n, plain4(), esp)), framed(plain4()))
		}
		for _, change := range []func(*sa.SA){
			func(*sa.SA) {},
			func(s *sa.SA) { s.Name, s.Window = "new", 1024 },
		} {
			back := *esp
			change(&back)
			h.replace(other)
			h.replace(&back)
			h.drops(framed(once(t, far, plain4(), esp)), replay)
			h.drops(framed(once(t, far-1, plain4(), esp)), replay) // it may have come
			if h.state(back.Name).T < far || h.window(back.Name).Top < far {
				t.Errorf("state %+v", h.state(back.Name))
			}
		}
		h.replace()
		tunnel := espSA(sa.Tunnel, esn, spi(esp.SPI), between(esp.Src, esp.Dst)) // the same key in another mode
		h.replace(tunnel)
		h.drops(framed(once(t, far, plain4(), tunnel)), replay)
		h.replace(esp) // at once, with what was counted
		if n := h.state(esp.Name).Tally.Dropped[replay]; n != 1 {
			t.Errorf("%d drops", n)
		}
		h.drops(framed(once(t, far, plain4(), esp)), replay)
		another := espSA(sa.Transport, esn, testkit.Suite("aes256gcm16")) // the same SPI with another key
		h.replace(another)
		h.delivers(framed(once(t, 1, plain4(), another)), framed(plain4()))
		h.replace(esp)
		h.delivers(framed(once(t, far+1, plain4(), esp)), framed(plain4()))
	})
}

// Contract, Lifecycle: SAs come and go between two frames, all or none, and a bundle as
// one. A number that came before is a replay afterwards, too.
func TestAddAndDelete(t *testing.T) {
	natted := espSA(sa.Transport, spi(0x1003), encap, func(s *sa.SA) { s.Lifetimes.Hard.Time = time.Hour })
	mortal := espSA(sa.Tunnel, spi(0x2005), func(s *sa.SA) { s.Lifetimes.Hard.Time = 2 * time.Hour })
	tun, pair := espSA(sa.Tunnel), bundle(sa.Transport)
	h := newHost(t, setup{sas: []*sa.SA{espSA(sa.Transport)}})
	add := func(bundles ...[]*sa.SA) {
		t.Helper()
		if err := errors.Join(h.software.AddAll(bundles), h.Add(bundles)); err != nil {
			t.Fatal(err)
		}
	}
	alive := framed(forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(host4b, 4500), []byte{0xff}))
	h.delivers(alive, alive) // without an encapsulated SA the port is like any other
	add([]*sa.SA{natted}, []*sa.SA{pair[1], pair[0]})
	add([]*sa.SA{tun}, []*sa.SA{mortal})
	h.drops(alive, transport.KeepAlive)
	if err := h.Add([][]*sa.SA{{espSA(sa.Tunnel, spi(0x2009))}, {natted}}); err == nil || h.Count() != 6 {
		t.Errorf("twice the same SA: %v, %d SAs", err, h.Count())
	}
	for _, sas := range [][]*sa.SA{{natted}, pair, {tun}} {
		h.delivers(framed(once(t, 1, plain4(), sas...)), framed(plain4()))
	}
	h.tick(time.Hour)
	h.notices() // it was added a second later
	h.tick(time.Hour + time.Second)
	h.notices(transport.Expired)
	h.delivers(framed(once(t, 3, plain4(), pair...)), framed(plain4()))
	for _, gone := range []*sa.SA{natted, pair[1], mortal} {
		if err := errors.Join(h.Delete(gone.ID()), h.software.Delete(gone.ID())); err != nil {
			t.Error(err)
		}
		if err := h.Delete(gone.ID()); !errors.Is(err, sa.ErrUnknown) {
			t.Errorf("a second delete: %v", err)
		}
	}
	if _, there := h.State(pair[0].ID()); there || h.Count() != 2 {
		t.Errorf("%d SAs", h.Count())
	}
	if s, there := h.State(tun.ID()); !there || s.Window.Top != 1 || !s.Since.Before(time.Now().Add(-time.Minute)) {
		t.Errorf("%v, %+v", there, s)
	}
	h.delivers(alive, alive)
	h.drops(framed(once(t, 2, plain4(), pair...)), transport.NoSA)
	h.SetLocal([]netip.Addr{gw4b})
	others := framed(once(t, 2, plain4(), pair...))
	h.delivers(others, others) // it is to somebody else
	h.SetLocal(ours)
	add([]*sa.SA{pair[1], pair[0]})
	h.drops(framed(once(t, 2, plain4(), pair...)), replay) // it may have come
	h.delivers(framed(once(t, 4, plain4(), pair...)), framed(plain4()))
	h.noticed()
	h.tick(3 * time.Hour)
	h.notices() // of what is gone
}

// A transport of another process goes on where the one before ended, and drops
// what it cannot write down.
func TestLedgerOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	esp := espSA(sa.Transport, func(s *sa.SA) { s.ESN, s.SeqHigh = true, 3 })
	frame := func(n uint64) []byte { return framed(once(t, n, plain4(), esp)) }
	for _, deliver := range []bool{true, false} {
		l, err := ledger.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t, setup{sas: []*sa.SA{esp}, ledger: l})
		if deliver {
			h.delivers(frame(4<<32-1), framed(plain4()))
			h.delivers(frame(4<<32+1), framed(plain4()))
		} else {
			h.drops(frame(4<<32+1), replay)
			h.delivers(frame(4<<32), framed(plain4())) // completed by NIC and software, which begin where the window is
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		h.drops(frame(4<<32+2), transport.NoLease)
	}
}
