package pipeline_test

import (
	"bytes"
	"slices"
	"testing"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// checkAuto runs the case with a NIC that does not know the modes of its SAs
// (contract rows 34 and 35): what is good comes out the same, in either form, and what
// is not has no portion.
func (c *frameCase) checkAuto(t *testing.T, s *sealed, want status.Trailer) {
	t.Helper()
	if c.profile != "" || c.prepare != nil || !undecided(&want) {
		return
	}
	forms := []status.Form{status.InPlace, status.Decap}
	if c.noDecap {
		forms = forms[:1]
	}
	for _, form := range forms {
		body, _ := process(t, c.nic(t), pipeline.Options{Queue: 3, Form: form}, s.frame)
		got, trailer := process(t, c.autoNIC(t), pipeline.Options{Queue: 3, Form: form}, s.frame)
		trailer.Form, trailer.Removed = status.InPlace, 0
		compare(t, trailer, want)
		if !bytes.Equal(got, body) {
			t.Errorf("%s with mode auto:\n%x, else\n%x", form, got, body)
		}
	}
}

// undecided makes of a trailer what it is where modes are not known. It reports
// whether the next header says what the modes do.
func undecided(t *status.Trailer) bool {
	code := t.Word.Code()
	for i := 0; i < int(t.N); {
		first, decided := i, true
		for ; i < int(t.N) && t.Records[i].IP == t.Records[first].IP; i++ {
			r := &t.Records[i]
			decided = decided && (r.State == status.ICVValid || r.Reason == status.InnerTunnelSA)
		}
		last := t.Records[i-1]
		if decided && last.State == status.ICVValid && (last.NextHeader == 4 || last.NextHeader == 41) != (last.Portion == status.TunnelPortion) {
			return false
		}
		for j := first; j < i && !decided; j++ {
			r := &t.Records[j]
			r.Portion, r.Code = status.NoPortion, r.Reason.Code(status.NoPortion)
			if r.Code != status.Success {
				code = r.Code
			}
		}
	}
	t.Word = t.Word.WithCode(code)
	return true
}

// undecidedSA is an SA whose mode nobody told.
func undecidedSA(s *sa.SA) *sa.SA {
	auto := *s
	auto.Mode = sa.Auto
	return &auto
}

// autoNIC is nic where no SA knows its mode.
func (c *frameCase) autoNIC(t *testing.T) *pipeline.SAD {
	t.Helper()
	blind := *c
	blind.sas, blind.also, blind.absent = nil, nil, nil
	for _, of := range []struct{ from, to *[]*sa.SA }{{&c.sas, &blind.sas}, {&c.also, &blind.also}} {
		for _, s := range *of.from {
			auto := undecidedSA(s)
			*of.to = append(*of.to, auto)
			if slices.Contains(c.absent, s) {
				blind.absent = append(blind.absent, auto)
			}
		}
	}
	return blind.nic(t)
}

// Contract, Mode auto: a text that does not tell the mode hardly tells what is in UDP. The NIC
// takes both, if it knows UDP and the SA has no AH in front.
func TestAutoInUDP(t *testing.T) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		inUDP := (&frameCase{sas: []*sa.SA{espSA(mode, encap)}}).seal(t).frame
		plain := (&frameCase{sas: []*sa.SA{espSA(mode)}}).seal(t).frame
		auto, autoUDP := undecidedSA(espSA(mode)), undecidedSA(espSA(mode, encap))
		bundled := bundle(sa.Auto)
		for _, f := range []struct {
			name, profile string
			sas           []*sa.SA
			frame         []byte
			reason        status.Reason
		}{
			{"outside", "full", []*sa.SA{auto}, plain, status.Verified},
			{"inside", "full", []*sa.SA{auto}, inUDP, status.Verified},
			{"inside, as it says", "full", []*sa.SA{autoUDP}, inUDP, status.Verified},
			{"outside, against what it says", "full", []*sa.SA{autoUDP}, plain, status.EncapMismatch},
			{"a mode that is known", "full", []*sa.SA{espSA(mode)}, inUDP, status.UDPNoSA},
			{"without UDP", "mlx5-crypto", []*sa.SA{auto}, inUDP, status.UDPNoSA},
			{"beneath an AH", "full", bundled, inUDP, status.UDPNoSA},
		} {
			t.Run(mode.String()+" "+f.name, func(t *testing.T) {
				nic := (&frameCase{sas: f.sas, profile: f.profile}).nic(t)
				if _, trailer := process(t, nic, pipeline.Options{}, f.frame); trailer.Reason != f.reason {
					t.Errorf("%s, want %s", trailer.Reason, f.reason)
				}
			})
		}
	}
}
