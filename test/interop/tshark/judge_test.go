package tshark

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"tapsec/configs"
	"tapsec/keys"
	"tapsec/sa"
	"tapsec/test/interop"
)

// ability is what tshark can do with an SA of the table.
type ability int

// The abilities of tshark 4.0, from good to bad.
const (
	checks  ability = iota // all there is to see
	decodes                // and does not check the ICV
	noESN                  // decodes, and calls every ICV bad
	nothing                // the table has no name for the algorithm
)

// line is the line of the matrix for frames with that ability.
func (a ability) line(what string, way interop.Way) interop.Line {
	l := interop.Line{Peer: "tshark", What: what, Way: way, Said: interop.Agrees}
	switch a {
	case decodes:
		l.What, l.Said = "ESP with aescmac or aesxcbc", "opens it, does not check the ICV"
	case noESN:
		l.What, l.Said = "ESP with ESN", "opens it, calls each ICV bad"
	case nothing:
		l.What, l.Said = "ESP with CCM, GMAC or ChaCha20-Poly1305", "has no such algorithm"
	}
	return l
}

// abilities tells what tshark is expected to do with each SPI, by what `keys` says
// of the table.
func abilities(t *testing.T, file string, text []byte) map[string]ability {
	t.Helper()
	c, err := configs.ParseKeys(file, text)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]ability{} // by SPI
	for _, s := range c.SAs {
		if s.Protocol == sa.ESP {
			all[fmt.Sprintf("0x%08x", s.SPI)] = abilityOf(s)
		}
	}
	return all
}

func abilityOf(s *sa.SA) ability {
	lost, err := keys.Lost(keys.ESPSA, s)
	switch {
	case err != nil, s.Suite.Cipher == sa.ChaCha20Poly1305: // Debian's is 4.0
		return nothing
	case slices.Contains(lost, "integrity"):
		return decodes
	case s.ESN:
		return noESN
	}
	return checks
}

// least is what tshark can do with all ESP of a frame; false where the SA of one is
// none of ESP.
func least(can map[string]ability, records []record) (ability, bool) {
	worst := checks
	for _, r := range records {
		a, known := can[r.SPI]
		if !known {
			return nothing, false
		}
		worst = max(worst, a)
	}
	return worst, true
}

// compare holds what tshark says of a frame against tapsec's verdict. ESP by ESP,
// outermost first, as far as both open them. Of a frame whose end the capture lacks
// neither has an opinion.
//
//  1. SPI and number are the same.
//  2. The ICV is good for both, or bad for both. Where tapsec failed for something
//     else before the ICV, and so has no opinion on it, tshark may say anything.
//  3. Behind a good ICV next header, pad and payload are the same.
func compare(v *verdict, l *layers, can map[string]ability) error {
	if !v.Judged && len(l.good)+len(l.bad) > 0 {
		return fmt.Errorf("not judged, for tshark good %v, bad %v", l.good, l.bad)
	}
	for i, r := range v.esp() {
		if !v.Judged {
			return nil
		}
		if i >= len(l.spi) || l.spi[i] != r.SPI || r.Reason != "esp-length" && l.seq[i] != strconv.FormatUint(r.Seq&0xffffffff, 10) {
			if r.Result == "icv-valid" || r.Reason == "esp-icv" {
				return fmt.Errorf("ESP %d is %s %d, tshark sees %v %v", i+1, r.SPI, r.Seq, l.spi, l.seq)
			}
			return nil
		}
		a := can[r.SPI]
		valid := r.Result == "icv-valid" || r.Result == "failed-after-icv"
		opinion := valid || r.Reason == "esp-icv" && a != noESN // which knows another number
		var said string
		if i < len(l.good) {
			said = fmt.Sprintf("good %v, bad %v", l.good[i], l.bad[i])
		}
		if want := expected(a, valid); opinion && said != want {
			return fmt.Errorf("ESP %d (%s): %s for tapsec, tshark %q, want %q", i+1, r.SPI, r.Result, said, want)
		}
		if r.Result != "icv-valid" || a == nothing {
			return nil
		}
		if p := v.payload(i); !l.holds(i, r, p) {
			return fmt.Errorf("ESP %d (%s): next %d, pad %d, payload %x; tshark: next %v, pad %v, payload %v", i+1, r.SPI, r.NextHeader, r.PadLength, p, l.next, l.pad, l.payload)
		}
	}
	return nil
}

func expected(a ability, valid bool) string {
	switch a {
	case decodes:
		return "good false, bad false"
	case noESN:
		return "good false, bad true"
	case nothing:
		return ""
	}
	return fmt.Sprintf("good %v, bad %v", valid, !valid)
}

// beyond tells whether tshark finds more good ESP in a frame than tapsec.
func beyond(v *verdict, l *layers) bool {
	n := 0
	for _, r := range v.esp() {
		if r.Result == "icv-valid" || r.Result == "failed-after-icv" {
			n++
		}
	}
	for _, good := range l.good {
		if good {
			n--
		}
	}
	return n < 0
}
