package status

import (
	"strings"
	"testing"
)

// Every reason has a name, a sentence and a number of its own; the numbers are
// part of the trailer's format, so that the ends of both ranges are pinned.
func TestReasons(t *testing.T) {
	names, sentences := map[string]Reason{}, map[string]Reason{}
	for _, r := range Reasons() {
		name, sentence := r.String(), r.Sentence()
		if other, twice := names[name]; twice || name == "" || strings.ContainsAny(name, " _ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("reason %d is named %q, as is %d", r, name, other)
		}
		if other, twice := sentences[sentence]; twice || len(sentence) < 15 {
			t.Errorf("reason %d says %q, as does %d", r, sentence, other)
		}
		names[name], sentences[sentence] = r, r
		if int(r) >= NumReasons {
			t.Errorf("reason %d is not below NumReasons", r)
		}
	}
	if NotIP != 1 || InnerLength != 27 || Verified != 32 || PadBytes != 43 {
		t.Errorf("reasons were renumbered: %d %d %d %d", NotIP, InnerLength, Verified, PadBytes)
	}
	for _, r := range []Reason{0, 31, Reason(NumReasons), 0xffff} {
		if !strings.HasPrefix(r.String(), "reason-") || !strings.Contains(r.Sentence(), "does not know") {
			t.Errorf("unknown reason %d: %q, %q", r, r, r.Sentence())
		}
	}
}

// The code that each reason gives in each portion (contract rows 1 to 35).
func TestReasonCode(t *testing.T) {
	type codes struct{ tunnel, transport, unknown Code }
	want := map[Reason]codes{
		AHICV:            {TunnelAHAuthFailed, TransportAHAuthFailed, GenericError},   // rows 7, 9, 12, 14, 19, 35
		ESPICV:           {TunnelESPAuthFailed, TransportESPAuthFailed, GenericError}, // rows 8, 10, 13, 14, 20, 35
		ProtocolMismatch: {InvalidProtocol, InvalidProtocol, InvalidProtocol},         // rows 22, 28
		BundleMismatch:   {InvalidProtocol, InvalidProtocol, InvalidProtocol},
		IPLength:         {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax}, // rows 23, 28
		UDPLength:        {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax},
		ESPLength:        {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax},
		AHLength:         {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax},
		PadLength:        {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax},
		OptionSyntax:     {InvalidPacketSyntax, InvalidPacketSyntax, InvalidPacketSyntax},
		PadBytes:         {GenericError, GenericError, GenericError}, // rows 24, 28
	}
	for r := range Reason(NumReasons + 5) {
		got := codes{r.Code(TunnelPortion), r.Code(TransportPortion), r.Code(NoPortion)}
		if got != want[r] {
			t.Errorf("%s: %v, expected %v", r, got, want[r])
		}
		if _, failed := want[r]; r.Failed() != failed {
			t.Errorf("%s: Failed %v", r, r.Failed())
		}
		if authentic := r == Verified || r == PadLength || r == PadBytes; r.Authentic() != authentic {
			t.Errorf("%s: Authentic %v", r, r.Authentic())
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		NoPortion.String(): "auto", TunnelPortion.String(): "tunnel", TransportPortion.String(): "transport", Portion(9).String(): "unknown",
		InPlace.String(): "inplace", Decap.String(): "decap",
		ICVValid.String(): "icv-valid", FailedBefore.String(): "failed", FailedAfter.String(): "failed-after-icv",
		NotProcessed.String(): "not-processed", State(0).String(): "unknown", State(5).String(): "unknown",
	} {
		if got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}
