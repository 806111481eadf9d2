package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tapsec/sa"
	"tapsec/status"
)

// Every vector is answered with its word, reason and records, and delivered
// with its plaintext in place and nothing else changed (contract, Bytes of a
// delivered frame), or decapsulated to the packet that was sealed (contract,
// Decap form).
func TestVectors(t *testing.T) {
	for _, l := range Vectors() {
		for _, form := range []status.Form{status.InPlace, status.Decap} {
			p := newPipeline(t, &l, form)
			for _, c := range l.Cases {
				if err := c.Check(p.Process(bytes.Clone(c.Frame))); err != nil {
					t.Errorf("%s: %s, %s:\n%v", l.Name, c.Title, form, err)
				}
			}
		}
	}
}

// Check names whatever differs from what a case expects.
func TestCheck(t *testing.T) {
	all := Vectors()
	l := all[slices.IndexFunc(all, func(l Setup) bool { return l.Cases[0].Decap != nil })]
	c := &l.Cases[0]
	answer := newPipeline(t, &l, status.InPlace).Process(bytes.Clone(c.Frame))
	if err := c.Check(answer); err != nil {
		t.Fatal(err)
	}
	body, good, err := status.Split(answer)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(body []byte, tr *status.Trailer){
		"word":   func(_ []byte, tr *status.Trailer) { tr.Word |= status.NextCryptoDone },
		"reason": func(_ []byte, tr *status.Trailer) { tr.Reason = status.NoSA },
		"record": func(_ []byte, tr *status.Trailer) { tr.Records[0].PadLen++ },
		"frame":  func(body []byte, _ *status.Trailer) { body[len(body)-1] ^= 1 },
		"form":   func(_ []byte, tr *status.Trailer) { tr.Form = status.Decap },
	} {
		b, tr := bytes.Clone(body), good
		change(b, &tr)
		if err := c.Check(status.Annotate(b, &tr)); err == nil {
			t.Errorf("another %s is not noticed", want)
		}
	}
	if err := c.Check(body); err == nil {
		t.Error("a missing trailer is not noticed")
	}
}

// Every suite is among the vectors, good and with a wrong ICV, and so are both
// portions, good and bad. Every CryptoStatus that means failure is among those
// that fail.
func TestVectorsCoverEverything(t *testing.T) {
	missing := map[string]bool{}
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			missing[fmt.Sprint(p, " ", su.Name, " good")] = true
			missing[fmt.Sprint(p, " ", su.Name, " bad")] = true
		}
	}
	for c := status.Success + 1; c < status.NumCodes; c++ {
		missing[c.String()] = true
	}
	for _, p := range []status.Portion{status.TunnelPortion, status.TransportPortion} {
		missing[fmt.Sprint(p, " good")], missing[fmt.Sprint(p, " bad")] = true, true
	}
	for _, l := range Vectors() {
		for _, c := range l.Cases {
			delete(missing, c.Word.Code().String())
			for _, key := range seen(&l, &c) {
				delete(missing, key)
			}
		}
	}
	for key := range missing {
		t.Errorf("no vector: %s", key)
	}
}

// seen says what a case's records show of suites and portions.
func seen(l *Setup, c *Case) (keys []string) {
	for _, r := range c.Records {
		f := strings.Fields(r) // portion, protocol, SPI, number, state
		how := map[string]string{"icv-valid": " good", "failed": " bad"}[f[4]]
		keys = append(keys, f[0]+how)
		for _, b := range l.Bundles {
			for _, s := range b {
				if fmt.Sprintf("0x%08x", s.SPI) == f[2] && s.Protocol.String() == f[1] && (how == " good" || c.Reason == status.ESPICV || c.Reason == status.AHICV) {
					keys = append(keys, f[1]+" "+s.Suite.Name+how)
				}
			}
		}
	}
	return keys
}
