package pipeline_test

import (
	"slices"
	"sync"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// esnSuites are an ESN SA of each way in which the high half enters the ICV.
func esnSuites(changes ...change) []*sa.SA {
	with := func(more ...change) []change { return append(slices.Clone(changes), append(more, esn)...) }
	return []*sa.SA{
		espSA(sa.Transport, with()...),
		espSA(sa.Tunnel, with(testkit.Suite("aes128-sha256"))...),
		espSA(sa.Transport, with(testkit.Suite("chacha20poly1305"))...),
		espSA(sa.Tunnel, with(testkit.Suite("aes256gmac"))...),
		ahSA(sa.Transport, with()...),
		ahSA(sa.Tunnel, with(testkit.Suite("aes128gmac"))...),
	}
}

// esnStream sends numbers to one SA of one NIC.
type esnStream struct {
	t   *testing.T
	sad *pipeline.SAD
	p   *pipeline.Pipeline
	sa  *sa.SA
}

func newStream(t *testing.T, a *sa.SA) *esnStream {
	c := frameCase{sas: []*sa.SA{a}}
	sad := c.nic(t)
	return &esnStream{t, sad, pipeline.New(sad, pipeline.Options{}), a}
}

// send seals number and returns what the NIC says of it.
func (s *esnStream) send(number uint64, change func(*frameCase)) status.Trailer {
	s.t.Helper()
	c := frameCase{sas: []*sa.SA{s.sa}, numbers: map[*sa.SA]uint64{s.sa: number}}
	if change != nil {
		change(&c)
	}
	_, trailer := run(s.t, s.p, c.seal(s.t).frame)
	return trailer
}

func (s *esnStream) good(numbers ...uint64) {
	s.t.Helper()
	for _, n := range numbers {
		if trailer := s.send(n, nil); trailer.Word != 2 || trailer.Records[0].Number != n {
			s.t.Errorf("%s: number %#x: word %s, number %#x", s.sa.Name, n, trailer.Word, trailer.Records[0].Number)
		}
	}
}

func (s *esnStream) bad(number uint64) {
	s.t.Helper()
	if trailer := s.send(number, nil); trailer.Reason != status.ESPICV && trailer.Reason != status.AHICV {
		s.t.Errorf("%s: number %#x: %s", s.sa.Name, number, trailer.Reason)
	}
}

func (s *esnStream) top(want uint64) {
	s.t.Helper()
	if got := s.sad.List()[0].Top; got != want {
		s.t.Errorf("%s: T is %#x, want %#x", s.sa.Name, got, want)
	}
}

// The high half follows the numbers authenticated: over a wrap, over losses,
// and back to late ones (contract, ESN).
func TestESNInference(t *testing.T) {
	for _, a := range esnSuites() {
		s := newStream(t, a)
		s.top(0)
		s.good(1, 2, 0x7fffffff, 0xfffffff0) // a loss of just under 2^31 each
		s.good(0x1_00000005, 0xffffffff, 0x1_00000001)
		s.top(0x1_00000005)
		s.good(0x1_00000005 + 1<<31) // a tie goes ahead
		s.good(0x1_00000006, 0x1_fffffffe, 0x2_00000000)
		s.top(0x2_00000000)
	}
}

// A replay of 2^31 numbers ago falls into another subspace and fails its ICV
// (contract row 25); a later number than can be inferred fails too.
func TestESNOldReplay(t *testing.T) {
	for _, a := range esnSuites(func(s *sa.SA) { s.SeqHigh = 7 }) {
		s := newStream(t, a)
		s.bad(6<<32 | 5) // nothing authenticated: the high half is seq_high itself
		s.good(7<<32 | 0x90000000)
		s.bad(7<<32 | 0x10000000)
		s.bad(8<<32 | 0x10000001)
		s.good(8<<32|0x10000000, 7<<32|0x90000001)
		s.bad(7<<32 | 0x90000000)
	}
}

// An authentic replay is as good as fresh: the transport finds it (row 25).
func TestRow25(t *testing.T) {
	for _, a := range []*sa.SA{espSA(sa.Transport), ahSA(sa.Tunnel), espSA(sa.Tunnel, esn)} {
		newStream(t, a).good(5, 5, 4, 5)
	}
}

// seq tells T from the start; without it the first frame takes seq_high.
func TestESNTakeover(t *testing.T) {
	for _, a := range esnSuites(func(s *sa.SA) { s.Seq = 3<<32 | 0xfffffff0 }) {
		s := newStream(t, a)
		s.top(3<<32 | 0xfffffff0)
		s.good(4<<32 | 5)
	}
	for _, a := range esnSuites(func(s *sa.SA) { s.SeqHigh = 3 }) {
		s := newStream(t, a)
		s.bad(4<<32 | 5)
		s.good(3<<32 | 5)
	}
}

// update replaces seq_high before the first authenticated number, and afterwards
// raises T or does nothing.
func TestESNUpdate(t *testing.T) {
	for _, a := range esnSuites(func(s *sa.SA) { s.SeqHigh = 3 }) {
		s := newStream(t, a)
		update := func(high uint32) {
			t.Helper()
			if err := s.sad.Update(s.sad.List()[0].Handle, high); err != nil {
				t.Fatal(err)
			}
		}
		update(9)
		update(2)
		s.good(2<<32 | 0x80000001)
		update(1)
		s.top(2<<32 | 0x80000001)
		update(5)
		s.top(5 << 32)
		s.good(5<<32 | 1)
		if err := s.sad.Update(999, 1); err == nil {
			t.Error("an unknown handle was updated")
		}
	}
}

// Only a valid ICV moves T, but it does so whatever fails later (contract, ESN;
// rows 23 d and 24).
func TestESNMovesWithValidICVs(t *testing.T) {
	for _, a := range esnSuites() {
		s := newStream(t, a)
		s.good(10)
		s.send(0x70000000, func(c *frameCase) { c.spoil = flipLast })
		s.top(10)
		if a.Protocol == sa.AH {
			continue
		}
		a.PadCheck = true
		number := uint64(20)
		for _, m := range []forge.Mangle{forge.ZeroPad, forge.PadLength(255)} {
			trailer := s.send(number, func(c *frameCase) { c.mangle = mangled(a, m) })
			if trailer.Records[0].State != status.FailedAfter || trailer.Records[0].Number != number {
				t.Errorf("%s: %+v", a.Name, trailer.Records[0])
			}
			s.top(number)
			number++
		}
	}
}

// Of AH+ESP each SA has its own T, and the AH's rises though the ESP fails.
func TestESNBundle(t *testing.T) {
	b := bundle(sa.Tunnel, esn)
	c := frameCase{sas: b, numbers: map[*sa.SA]uint64{b[0]: 4, b[1]: 9}, mangle: mangled(b[1], flipLast)}
	sad := c.nic(t)
	process(t, sad, pipeline.Options{}, c.seal(t).frame)
	tops := map[sa.Protocol]uint64{}
	for _, h := range sad.List() {
		tops[h.Protocol] = h.Top
	}
	if tops[sa.AH] != 9 || tops[sa.ESP] != 0 {
		t.Errorf("T of AH and ESP is %d and %d, want 9 and 0", tops[sa.AH], tops[sa.ESP])
	}
}

// A reload keeps T and handle of an SA that is unchanged, and starts one with
// other keys afresh (contract, ESN).
func TestESNReload(t *testing.T) {
	a := espSA(sa.Transport, esn)
	s := newStream(t, a)
	s.good(0x1234)
	handle := s.sad.List()[0].Handle
	again := *a
	if err := s.sad.Replace([][]*sa.SA{{&again}, {espSA(sa.Tunnel)}}); err != nil {
		t.Fatal(err)
	}
	for _, h := range s.sad.List() {
		if h.Mode == sa.Transport && (h.Handle != handle || h.Top != 0x1234) {
			t.Errorf("after a reload: handle %d, T %#x", h.Handle, h.Top)
		}
	}
	other := *a
	other.EncryptionKey = testkit.Key(200, a.EncryptionKey.Len())
	if err := s.sad.Replace([][]*sa.SA{{&other}}); err != nil {
		t.Fatal(err)
	}
	if h := s.sad.List()[0]; h.Top != 0 {
		t.Errorf("another key kept T %#x", h.Top)
	}
}

// One SA whose frames come by two queues at once, where the low 32 bits wrap: each number is told
// right, T ends at the highest, and never falls. Run with -race.
func TestESNFromTwoQueues(t *testing.T) {
	const queues, each, wrap = 2, 1000, uint64(5) << 32
	for _, a := range esnSuites(func(s *sa.SA) { s.SeqHigh = 4 }) {
		sad := pipeline.NewSAD(sa.Profiles[0], queues)
		offload(t, sad, a)
		var frames [queues * each][]byte
		for i := range frames {
			c := frameCase{sas: []*sa.SA{a}, numbers: map[*sa.SA]uint64{a: wrap - each + uint64(i)}}
			frames[i] = c.seal(t).frame
		}
		var begun, ended sync.WaitGroup
		begun.Add(queues)
		for queue := range queues {
			ended.Go(func() {
				p := pipeline.New(sad, pipeline.Options{Worker: queue, Queue: uint16(queue)})
				begun.Done()
				begun.Wait()
				for i := queue; i < len(frames); i += queues {
					_, trailer := run(t, p, frames[i])
					if n := wrap - each + uint64(i); trailer.Word != 2 || trailer.Records[0].Number != n {
						t.Errorf("%s, queue %d: number %#x: word %s, number %#x", a.Name, queue, n, trailer.Word, trailer.Records[0].Number)
						return
					}
					if top := sad.List()[0].Top; top < trailer.Records[0].Number {
						t.Errorf("%s, queue %d: T is %#x behind number %#x", a.Name, queue, top, trailer.Records[0].Number)
					}
				}
			})
		}
		ended.Wait()
		if top := sad.List()[0].Top; top != wrap+each-1 {
			t.Errorf("%s: T is %#x, want %#x", a.Name, top, wrap+each-1)
		}
	}
}

// While the high half of a bundle's AH is presumed, its ESP's is the one that has been
// reached, else the one with which the SA began (RFC 4303 appendix A3).
func TestRetryOfABundle(t *testing.T) {
	sas := bundle(sa.Transport, esn, func(s *sa.SA) { s.SeqHigh = 4 })
	e, a := sas[0], sas[1]
	software := pipeline.NewSoftware()
	if err := software.Replace([][]*sa.SA{{a, e}}); err != nil {
		t.Fatal(err)
	}
	for _, number := range []uint64{4<<32 | 2, 5<<32 | 2} {
		c := frameCase{sas: sas, numbers: map[*sa.SA]uint64{e: number, a: 7<<32 | 9}}
		frame := c.seal(t).frame
		for high, want := range map[uint32]status.Word{6: 0x00020002, 7: 2} {
			if _, found := software.Retry(slices.Clone(frame), a, high); found.Word != want || found.N != 2 {
				t.Errorf("high half %d: word %s, want %s; %d records", high, found.Word, want, found.N)
			}
		}
		software.Mark(e.ID()).Authenticated(5<<32 | 1)
	}
}

// marks remembers one SA.
type marks struct {
	one     *sa.Mark
	dropped **sa.Mark
}

func (m marks) Of(*sa.SA) *sa.Mark { return m.one }

func (m marks) Dropped(_ *sa.SA, dropped *sa.Mark) { *m.dropped = dropped }

// What was remembered of an SA before it was offloaded completes its numbers,
// hears of those that were good, and is given back.
func TestRemember(t *testing.T) {
	a := esnSuites()[0]
	remembered := sa.NewMark(a)
	remembered.Authenticated(7<<32 | 1)
	sad := pipeline.NewSAD(sa.Profiles[0], 1)
	var dropped *sa.Mark
	sad.Remember(marks{remembered, &dropped})
	offload(t, sad, a)
	const next = 7<<32 | 2
	c := frameCase{sas: []*sa.SA{a}, numbers: map[*sa.SA]uint64{a: next}}
	_, trailer := run(t, pipeline.New(sad, pipeline.Options{}), c.seal(t).frame)
	if trailer.Word != 2 || trailer.Records[0].Number != next || remembered.T() != next {
		t.Errorf("word %s, number %#x, T %#x", trailer.Word, trailer.Records[0].Number, remembered.T())
	}
	if err := sad.Delete(sad.Handle(a.ID())); err != nil || dropped != remembered {
		t.Errorf("deleted, and told of %p, want %p; %v", dropped, remembered, err)
	}
}
