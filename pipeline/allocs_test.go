package pipeline_test

import (
	"testing"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// Process allocates nothing per frame, for every suite of both protocols, in
// every form, with ESN and without; and Failed is told of what fails, as it is on the
// wire.
func TestNoAllocations(t *testing.T) {
	for _, su := range append(sa.Suites(sa.ESP), sa.Suites(sa.AH)...) {
		mk := espSA
		if su.Protocol == sa.AH {
			mk = ahSA
		}
		for i, a := range []*sa.SA{mk(sa.Transport, testkit.Suite(su.Name)), mk(sa.Tunnel, testkit.Suite(su.Name), esn)} {
			allocates(t, frameCase{sas: []*sa.SA{a}, word: 2}, status.Form(i))
		}
	}
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		allocates(t, frameCase{sas: append(bundle(sa.Transport), bundle(sa.Tunnel)...), word: 6}, form)
		allocates(t, frameCase{sas: []*sa.SA{espSA(sa.Transport)}, spoil: flipLast, word: 0x00030002}, form)
		inner, outer := espSA(sa.Transport), espSA(sa.Tunnel)
		blind := frameCase{absent: []*sa.SA{inner, outer}, also: []*sa.SA{undecidedSA(inner), undecidedSA(outer)}}
		blind.sas, blind.word = blind.absent, 6
		allocates(t, blind, form)
		blind.sas, blind.word, blind.spoil = blind.sas[:1], 0x00010002, flipLast
		allocates(t, blind, form)
		missing := espSA(sa.Transport)
		allocates(t, frameCase{sas: []*sa.SA{missing}, absent: []*sa.SA{missing}, also: []*sa.SA{espSA(sa.Transport, encap)}}, form)
	}
}

func allocates(t *testing.T, c frameCase, form status.Form) {
	t.Helper()
	frame := c.seal(t).frame
	failed := 0
	p := pipeline.New(c.nic(t), pipeline.Options{Form: form, Failed: func(b []byte, t *status.Trailer) {
		if t.Word == c.word && len(b) == len(frame) {
			failed++
		}
	}})
	buffer := make([]byte, len(frame)+status.Tailroom)
	var out []byte
	n := testing.AllocsPerRun(20, func() {
		copy(buffer, frame)
		out = p.Process(buffer[:len(frame)])
	})
	_, trailer, err := status.Split(out)
	if err != nil || trailer.Word != c.word {
		t.Errorf("%s: %v, word %s, want %s", c.sas[0].Suite.Name, err, trailer.Word, c.word)
	}
	if want := c.word.Code() != status.Success; (failed > 0) != want {
		t.Errorf("%s: told of %d failures, of a frame with word %s", c.sas[0].Suite.Name, failed, c.word)
	}
	if n != 0 {
		t.Errorf("%s, %s: %v allocations a frame", c.sas[0].Suite.Name, form, n)
	}
}

// TestFirstFrameAllocatesNothing: an SA is keyed when it is added, so its first frame finds that done.
func TestFirstFrameAllocatesNothing(t *testing.T) {
	for _, suite := range []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305"} {
		c := frameCase{sas: []*sa.SA{espSA(sa.Transport, testkit.Suite(suite))}, word: 2}
		frame := c.seal(t).frame
		const runs = 20
		var fresh []*pipeline.Pipeline
		for range runs + 1 { // the first one is not counted
			fresh = append(fresh, pipeline.New(c.nic(t), pipeline.Options{}))
		}
		buffer := make([]byte, len(frame)+status.Tailroom)
		n := testing.AllocsPerRun(runs, func() {
			fresh[0].Process(buffer[:copy(buffer, frame)])
			fresh = fresh[1:]
		})
		if n != 0 {
			t.Errorf("%s: %v allocations for the first frame of an SA", suite, n)
		}
	}
}
