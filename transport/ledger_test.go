package transport_test

import (
	"path/filepath"
	"testing"

	"tapsec/internal/ledger"
	"tapsec/sa"
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
			if h.state(back.Name).T < far || h.window(back.Name).Top < far {
				t.Errorf("state %+v", h.state(back.Name))
			}
		}
		h.replace()
		h.replace(esp)
		h.delivers(framed(once(t, far+1, plain4(), esp)), framed(plain4()))
	})
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
