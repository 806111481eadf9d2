package pipeline_test

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapsec/esp"
	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// together draws a NIC and frames for it, and compares what becomes of them one after the other with
// what does where the pipeline expects them, and may take them through its stages together. It
// reports how many frames there were.
func together(t *testing.T, seed uint64) int {
	d := draw{rand.New(rand.NewPCG(seed, 1))}
	six := d.oneIn(2)
	stack := d.stack(six)
	for _, s := range stack {
		if s.Protocol == sa.ESP && s.Bundle == "" && !d.oneIn(4) {
			testkit.Suite(pick(d, "aes128-sha1", "aes256-sha512", "aes128ctr-sha384", "null-sha512", "aes192-sha256"))(s)
		}
	}
	var frames [][]byte
	for range 1 + d.IntN(3*esp.Burst) {
		part := stack
		if d.oneIn(3) {
			part = stack[d.IntN(len(stack)):]
		}
		if f := d.frame(part, six); f != nil {
			frames = append(frames, f)
		}
	}
	if d.oneIn(3) {
		for _, s := range stack { // from now on, for the NIC
			if s.Bundle == "" {
				s.Mode = sa.Auto
			}
		}
	}
	form, nic := pick(d, status.InPlace, status.Decap), d.Uint64()
	make := func() (*pipeline.SAD, *pipeline.Pipeline) {
		sad, _ := draw{rand.New(rand.NewPCG(nic, 2))}.nic(stack)
		p := pipeline.New(sad, pipeline.Options{Form: form})
		p.At(time.Unix(1, 0))
		return sad, p
	}
	alone, one := make()
	joint, all := make()
	expected := slots(frames)
	all.Expect(expected)
	for i, f := range slots(frames) {
		want, got := one.Process(f), all.Process(expected[i])
		if !bytes.Equal(want, got) {
			t.Errorf("scenario %d of %v, frame %d of %d\n% x\nalone\n% x\nin a burst\n% x", seed, stack, i, len(frames), frames[i], want, got)
		}
	}
	one.Publish()
	all.Publish()
	for _, r := range status.Reasons() {
		if a, b := one.Counters().Reason(r), all.Counters().Reason(r); a != b {
			t.Errorf("scenario %d: %d frames ended with %s, in bursts %d", seed, a, r, b)
		}
	}
	if a, b := holdings(alone), holdings(joint); !slices.EqualFunc(a, b, sameHolding) {
		t.Errorf("scenario %d: the SAs are then\n%+v\nand after bursts\n%+v", seed, a, b)
	}
	return len(frames)
}

func slots(frames [][]byte) (all [][]byte) {
	for _, f := range frames {
		all = append(all, append(make([]byte, 0, len(f)+status.Tailroom), f...))
	}
	return all
}

func holdings(sad *pipeline.SAD) []pipeline.Holding {
	return slices.SortedFunc(slices.Values(sad.List()), func(a, b pipeline.Holding) int { return cmp.Compare(a.Handle, b.Handle) })
}

func sameHolding(a, b pipeline.Holding) bool {
	return a.Handle == b.Handle && a.Top == b.Top && a.Failed == b.Failed
}

// Whether frames are expected or not, what is found of them is the same: words, reasons, records,
// numbers of ESN, bytes and counts (Pipeline.Expect). With -tags ipsecmb they go through the stages
// in bursts.
func TestBurst(t *testing.T) {
	frames := 0
	for seed := uint64(0); seed < 3000 && !t.Failed(); seed++ {
		frames += together(t, seed)
	}
	if want := 2000 * esp.Burst; frames < want {
		t.Errorf("%d frames, too few", frames)
	}
}

// FuzzBurst is the same for as long as one likes.
func FuzzBurst(f *testing.F) {
	f.Fuzz(func(t *testing.T, seed uint64) { together(t, seed) })
}

// An AH in front of a tunnel's ESP, as Linux builds it, is checked in the stage of tunnels, and alone in that
// of transport portions; its ESN mark rises in the frames' order all the same.
func TestBurstOfAHInBothStages(t *testing.T) {
	tunnel := espSA(sa.Tunnel, testkit.Suite("aes128-sha1"))
	ah := ahSA(sa.Transport, between(gw4a, gw4b), esn, func(s *sa.SA) { s.Seq = 2<<32 | 0xfffffff0 })
	number := func(n uint64) map[*sa.SA]uint64 { return map[*sa.SA]uint64{ah: n} }
	alone := forge.UDP(nil, netip.AddrPortFrom(gw4a, 1), netip.AddrPortFrom(gw4b, 2), message)
	cases := []frameCase{
		{sas: []*sa.SA{ah}, packet: alone, numbers: number(3<<32 | 5)},
		{sas: []*sa.SA{tunnel, ah}, numbers: number(3<<32 | 0x70000000)},
		{sas: []*sa.SA{tunnel, ah}, numbers: number(3<<32 | 0xe0000000)},
	}
	p, frames := expected(t, cases, cases[1].nic(t))
	for i, f := range frames {
		if _, trailer := p.Check(f); trailer.Reason != status.Verified || trailer.Records[0].Number != cases[i].numbers[ah] {
			t.Errorf("frame %d: %s, number %#x", i, trailer.Reason, trailer.Records[0].Number)
		}
	}
}

// expected are the frames of cases, and the pipeline of a NIC that expects them.
func expected(t *testing.T, cases []frameCase, nic *pipeline.SAD) (p *pipeline.Pipeline, frames [][]byte) {
	for i := range cases {
		frames = append(frames, cases[i].seal(t).frame)
	}
	frames = slots(frames)
	p = pipeline.New(nic, pipeline.Options{})
	p.Expect(frames)
	return p, frames
}

// A frame that is not the one expected is the programmer's error.
func TestUnexpected(t *testing.T) {
	c := frameCase{sas: []*sa.SA{espSA(sa.Transport, testkit.Suite("aes128-sha1"))}}
	frames := slots([][]byte{c.seal(t).frame, c.seal(t).frame})
	p := pipeline.New(c.nic(t), pipeline.Options{})
	p.Expect(frames)
	defer func() {
		if got := recover(); (got != nil) != (esp.Burst > 1) {
			t.Errorf("panic: %v", got)
		}
	}()
	p.Process(frames[1])
}

// Behind a good tunnel such an AH is left alone with the tunnel's ESP; its number is that which the
// transport portions in front have come to.
func TestBurstOfAHInALeftTunnel(t *testing.T) {
	around, tunnel := espSA(sa.Tunnel, testkit.Suite("aes128-sha1")), espSA(sa.Tunnel, spi(0x2003))
	ah := ahSA(sa.Transport, between(gw4a, gw4b), esn, func(s *sa.SA) { s.Seq = 2<<32 | 0xfffffff0 })
	number := func(n uint64) map[*sa.SA]uint64 { return map[*sa.SA]uint64{ah: n} }
	alone := forge.UDP(nil, netip.AddrPortFrom(gw4a, 1), netip.AddrPortFrom(gw4b, 2), message)
	cases := []frameCase{
		{sas: []*sa.SA{ah, around}, packet: alone, numbers: number(3<<32 | 5)},
		{sas: []*sa.SA{tunnel, ah, around}, numbers: number(3<<32 | 0x80000003)},
	}
	p, frames := expected(t, cases, cases[1].nic(t))
	for i, f := range frames {
		if _, trailer := p.Check(f); trailer.N != uint8(len(cases[i].sas)) || trailer.Records[1].Number != cases[i].numbers[ah] {
			t.Errorf("frame %d: %s, %d records, number %#x", i, trailer.Reason, trailer.N, trailer.Records[1].Number)
		}
	}
}
