package outbound

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"tapsec/internal/ledger"
	"tapsec/pipeline"
	"tapsec/sa"
)

// numbers opens a frame and tells the sequence number of each SA, outermost first.
func numbers(t *testing.T, p *pipeline.Pipeline, frame []byte, portions int) (n []uint64) {
	t.Helper()
	_, trailer := open(t, p, frame, portions)
	for _, r := range trailer.Records[:trailer.N] {
		n = append(n, r.Number)
	}
	return n
}

// An SA has one count of numbers in whatever stack it is used (RFC 4303 section
// 3.3.3), and no number comes twice.
func TestNumbers(t *testing.T) {
	sas := []*sa.SA{web(4), with(site(4), esn)}
	s, r := newSender(t, Config{SAs: sas, First: 5}), receiver(t, sas...)
	const high = 7 << 32
	for _, c := range []struct {
		frame []byte
		want  []uint64
	}{
		{to("10.9.9.9", 80), []uint64{high + 1}},
		{to("10.0.0.2", 80), []uint64{high + 2, 5}},
		{to("10.9.9.9", 81), []uint64{high + 3}},
		{to("10.0.0.2", 81), []uint64{high + 4, 6}},
	} {
		if got := numbers(t, r, send(s, c.frame)[0], len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("numbers %d, want %d", got, c.want)
		}
	}
	if got := s.States(); got[0].Name != "web" || got[0].Next != 7 || got[1].Name != "site" || got[1].Next != high+5 {
		t.Errorf("states %v", got)
	}
}

// A number is never used again: after the last one packets are dropped, 32 bits
// or 64, which is said once (RFC 4303 section 3.3.3), and a flow of other SAs is
// none the worse.
func TestNumbersUsed(t *testing.T) {
	for name, a := range map[string]*sa.SA{
		"32 bits": with(site(4), func(a *sa.SA) { a.OSeq = 1<<32 - 2 }),
		"64 bits": with(site(4), func(a *sa.SA) { a.ESN, a.OSeq = true, 1<<64-3 }),
	} {
		var said []Event
		c := Config{SAs: []*sa.SA{with(a, selecting(sa.Selector{DstPorts: port(1)})), newSA("spare", 9, sa.ESP, sa.Tunnel, gcm, gateways[4])},
			MTU: 1500, Use: [][]string{{"site"}, {"spare"}}, Audit: func(e Event) { said = append(said, e) }}
		s := newSender(t, c)
		for range 3 {
			send(s, to("10.0.0.2", 1), to("10.0.0.2", 2))
			if err := s.Replace(c); err != nil {
				t.Fatal(err)
			}
		}
		if len(said) != 1 || said[0].Reason != NumbersUsed || said[0].SA != "site" || said[0].SPI != a.SPI || said[0].Number+1 != s.sas.names["site"].counter.Peek() {
			t.Errorf("%s: said %+v", name, said)
		}
		if got := counts(s); got != " sealed:4 numbers-used:2" {
			t.Errorf("%s: counted%s", name, got)
		}
	}
}

// Replace goes on with the numbers of keys that stay, whatever else of their SA
// has changed, and begins those of new keys. What it refuses changes nothing.
func TestReplace(t *testing.T) {
	s := newSender(t, Config{SAs: []*sa.SA{site(4)}})
	frame := udp(4, 10)
	send(s, frame, frame)
	renamed := with(site(4), func(a *sa.SA) { a.Name, a.SPI, a.Dst = "other", 0x999, hosts[4][1] })
	fresh := with(site(4), func(a *sa.SA) {
		a.Name, a.EncryptionKey = "fresh", sa.NewKey(bytes.Repeat([]byte{0x77}, 20))
	})
	for _, c := range []struct {
		a    *sa.SA
		want uint64
	}{{site(4), 3}, {renamed, 4}, {fresh, 1}} {
		if err := s.Replace(Config{SAs: []*sa.SA{c.a}, MTU: 1500}); err != nil {
			t.Fatal(err)
		}
		sent := send(s, frame)[0]
		if got := numbers(t, receiver(t, c.a), sent, 1); got[0] != c.want {
			t.Errorf("%s: number %d, want %d", c.a.Name, got[0], c.want)
		}
	}
	if err := s.Replace(Config{SAs: []*sa.SA{site(4), site(4)}, MTU: 1500}); err == nil {
		t.Error("replaced by one SA twice")
	}
	if got := numbers(t, receiver(t, fresh), send(s, frame)[0], 1); got[0] != 2 {
		t.Errorf("after a refusal: number %d, want 2", got[0])
	}
	bypass := []sa.Policy{{Action: sa.Bypass}}
	if err := s.Replace(Config{SAs: []*sa.SA{fresh}, Policy: bypass, MTU: 1500}); err != nil {
		t.Fatal(err)
	}
	if sent := send(s, frame)[0]; !bytes.Equal(sent, frame) {
		t.Error("a flow stays on its way after the policy has changed")
	}
}

// RFC 4106 section 3.1: a key's numbers go on when a configuration drops its SA
// and another one, in another Sender, brings it back, and two SAs of one key share
// them.
func TestNumbersOfAKey(t *testing.T) {
	l, frame := ledger.New(), udp(4, 10)
	twin := with(site(4), func(a *sa.SA) { a.Name, a.SPI, a.Dst = "twin", 0x999, hosts[4][1] })
	s := newSender(t, Config{SAs: []*sa.SA{site(4), twin}, Use: [][]string{{"site"}}, Ledger: l})
	send(s, frame, frame)
	for i, c := range []Config{
		{SAs: []*sa.SA{site(4), twin}, Use: [][]string{{"twin"}}},
		{SAs: []*sa.SA{web(4)}},
		{SAs: []*sa.SA{site(4)}},
	} {
		c.MTU, c.Ledger = 1500, l
		if err := s.Replace(c); err != nil {
			t.Fatal(err)
		}
		want := map[int]uint64{0: 3, 1: 1, 2: 4}[i]
		a := c.SAs[len(c.SAs)-1]
		if got := numbers(t, receiver(t, a), send(s, frame)[0], 1); got[0] != want {
			t.Errorf("configuration %d: number %d, want %d", i, got[0], want)
		}
	}
	s = newSender(t, Config{SAs: []*sa.SA{site(4)}, Ledger: l})
	if got := numbers(t, receiver(t, site(4)), send(s, frame)[0], 1); got[0] != 5 {
		t.Errorf("in another Sender: number %d, want 5", got[0])
	}
}

// Without its lease a number is not used, and the frame is counted.
func TestNoLease(t *testing.T) {
	l, err := ledger.Open(filepath.Join(t.TempDir(), "state"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSender(t, Config{SAs: []*sa.SA{site(4)}, Ledger: l})
	send(s, udp(4, 10))
	if err := l.Close(); err != nil { // which gives no number any more
		t.Fatal(err)
	}
	if sent := send(s, udp(4, 10)); len(sent) != 0 || counts(s) != " sealed:1 no-lease:1" {
		t.Errorf("sent %d, counted%s", len(sent), counts(s))
	}
}

// Contract, ESN: numbers beyond 2^32 are opened by who follows them.
func TestExtendedNumbers(t *testing.T) {
	const low = 1<<32 - 3
	a := with(site(4), func(a *sa.SA) { a.ESN, a.OSeq, a.Seq = true, low, low })
	s, r := newSender(t, Config{SAs: []*sa.SA{a}}), receiver(t, a)
	for i := range uint64(4) {
		if got := numbers(t, r, send(s, udp(4, 10))[0], 1); got[0] != low+1+i {
			t.Errorf("number %x", got[0])
		}
	}
}
