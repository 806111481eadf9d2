package outbound

import (
	"bytes"
	"slices"
	"testing"

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
// or 64, and a flow of other SAs is none the worse.
func TestNumbersUsed(t *testing.T) {
	last, lastESN := uint32(1<<32-2), uint32(1<<32-3)
	for name, a := range map[string]*sa.SA{
		"32 bits": with(site(4), func(a *sa.SA) { a.SeqLow = &last }),
		"64 bits": with(site(4), func(a *sa.SA) { a.ESN, a.SeqHigh, a.SeqLow = true, 1<<32-1, &lastESN }),
	} {
		s := newSender(t, Config{SAs: []*sa.SA{with(a, selecting(sa.Selector{DstPorts: port(1)})), with(site(4), named("spare", 9))},
			Use: [][]string{{"site"}, {"spare"}}})
		for range 3 {
			send(s, to("10.0.0.2", 1), to("10.0.0.2", 2))
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

// Contract, ESN: numbers beyond 2^32 are opened by who follows them.
func TestExtendedNumbers(t *testing.T) {
	low := uint32(1<<32 - 3)
	a := with(site(4), func(a *sa.SA) { a.ESN, a.SeqLow = true, &low })
	s, r := newSender(t, Config{SAs: []*sa.SA{a}}), receiver(t, a)
	for i := range uint64(4) {
		if got := numbers(t, r, send(s, udp(4, 10))[0], 1); got[0] != uint64(low)+1+i {
			t.Errorf("number %x", got[0])
		}
	}
}
