package outbound_test

import (
	"bytes"
	"fmt"
	"testing"

	"tapsec/internal/ledger"
	"tapsec/internal/outbound"
	"tapsec/sa"
)

// resized is a packet with the headers of another, n bytes long.
func resized(t *testing.T, packet []byte, n int) []byte {
	p := headers(t, packet)
	if n < p.Header {
		t.Fatalf("no packet of %d bytes", n)
	}
	return mended(append(bytes.Clone(packet[:p.Header]), make([]byte, n-p.Header)...))
}

// A packet as long as Fit says fits, one more byte does not, for whatever lies
// in front of what is sealed.
func TestFit(t *testing.T) {
	check := func(t *testing.T, packet []byte, sas ...*sa.SA) {
		s, err := outbound.NewSealer(nil, sas...)
		if err != nil {
			t.Fatal(err)
		}
		p := headers(t, packet)
		for mtu := 1400; mtu < 1400+16; mtu++ {
			n := s.Fit(mtu, p.Header)
			fits, err1 := s.Seal(nil, resized(t, packet, n))
			exceeds, err2 := s.Seal(nil, resized(t, packet, n+1))
			if err1 != nil || err2 != nil || len(fits) > mtu || len(exceeds) <= mtu {
				t.Fatalf("MTU %d: %d bytes seal to %d (%v), one more to %d (%v)", mtu, n, len(fits), err1, len(exceeds), err2)
			}
		}
	}
	each(t, func(t *testing.T, k stack, packet []byte) { check(t, packet, k.sas...) })
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			t.Run(su.Name, func(t *testing.T) { check(t, udp(4, 100), newSA(1, p, sa.Tunnel, su.Name, gateways[6])) })
		}
	}
}

// Where not even a header fits, Fit says so.
func TestFitNothing(t *testing.T) {
	for _, k := range stacks(6, 6, "aes128-sha256", "sha256")[1:] {
		s, err := outbound.NewSealer(nil, k.sas...)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Fit(60, 40); n >= 40 {
			t.Errorf("%s: %d bytes fit into 60", k.name, n)
		}
	}
}

// An SA that is in several stacks has one count of numbers, and the outer headers
// of all tunnels one of identifications (RFC 6864 section 4.3).
func TestStacks(t *testing.T) {
	web := newSA(1, sa.ESP, sa.Transport, "aes128gcm16", hosts[4])
	site := newSA(2, sa.ESP, sa.Tunnel, "aes128gcm16", gateways[4])
	spare := newSA(3, sa.ESP, sa.Tunnel, "aes128gcm16", gateways[4])
	all, err := outbound.NewSealer(nil, web, site, spare)
	if err != nil {
		t.Fatal(err)
	}
	direct, nested, other := all.Stack(1), all.Stack(0, 1), all.Stack(2)
	packet, ids := udp(4, 10), map[string]bool{}
	for i := range 3 {
		for _, c := range []struct {
			s      *outbound.Sealer
			sas    []*sa.SA
			number uint64
		}{{direct, []*sa.SA{site}, uint64(2*i + 1)}, {other, []*sa.SA{spare}, uint64(i + 1)}} {
			sealed, err := c.s.Seal(nil, packet)
			if err != nil {
				t.Fatal(err)
			}
			if got := open(t, sealed, c.number, c.sas...); !bytes.Equal(got, packet) {
				t.Errorf("came out as %x", got)
			}
			ids[string(sealed[4:6])] = true
		}
		sealed, err := nested.Seal(nil, packet)
		if err != nil {
			t.Fatal(err)
		}
		inner := openOne(t, sealed, uint64(2*i+2), site)
		if got := openOne(t, inner, uint64(i+1), web); !bytes.Equal(got, packet) {
			t.Errorf("came out as %x", got)
		}
		ids[string(sealed[4:6])] = true
	}
	if len(ids) != 9 {
		t.Errorf("%d identifications for 9 packets", len(ids))
	}
	if all.Number(0) != 4 || all.Number(1) != 7 || nested.Number(1) != 7 {
		t.Errorf("next numbers %d, %d and %d, want 4, 7 and 7", all.Number(0), all.Number(1), nested.Number(1))
	}
	if got, err := all.Stack().Seal(nil, packet); err != nil || !bytes.Equal(got, packet) {
		t.Errorf("a stack of nothing: %x, %v", got, err)
	}
	defer func() {
		if got := fmt.Sprint(recover()); got != "outbound: an SA twice in one stack" {
			t.Error(got)
		}
	}()
	all.Stack(1, 0, 1)
}

// Not even the 64 bits of ESN begin again: the last number is not used.
func TestExtendedNumbersEnd(t *testing.T) {
	a := newSA(1, sa.ESP, sa.Transport, "aes128gcm16", hosts[4])
	a.ESN = true
	s, err := outbound.NewSealer(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	s.SetNumber(0, 1<<64-2)
	for i, want := range []error{nil, ledger.ErrUsedUp, ledger.ErrUsedUp} {
		if _, err := s.Seal(nil, udp(4, 10)); err != want {
			t.Errorf("packet %d: %v, want %v", i, err, want)
		}
	}
}
