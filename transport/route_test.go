package transport_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/status"
)

// Contract, The transport, step 8: the annotation passes as a value or as the frame's
// trailer, and nothing depends on which. What is delivered, the verdicts and their
// reasons, windows, tallies, events, mirrored frames, what the reader of ICMP sees and
// what the NIC is told are the same, and so is what the NIC counts.
func TestRouteInvariance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLottery(t, rt)
		n := rapid.SampledFrom(nics).Draw(rt, "NIC")
		s := setup{sas: l.sas, policy: l.policy, profile: n.profile, prepare: n.prepare, deaf: rapid.Bool().Draw(rt, "deaf")}
		asTrailer, asValue := newHost(t, s), newHost(t, s)
		for number := range rapid.IntRange(1, 20).Draw(rt, "batches") {
			var batch [][]byte
			for range rapid.IntRange(1, 5).Draw(rt, "frames") {
				batch = append(batch, l.forged(l.frame(number)))
			}
			want, got := asTrailer.batch(batch), asValue.batchAsValue(batch)
			if a, b := fmt.Sprintf("% x", want), fmt.Sprintf("% x", got); a != b {
				rt.Fatalf("batch %d\n% x\nby trailer delivers\n%s\nby value\n%s", number, batch, a, b)
			}
			if a, b := asTrailer.account(), asValue.account(); a != b {
				rt.Fatalf("after batch %d\n% x\nby trailer\n%s\nby value\n%s", number, batch, a, b)
			}
		}
	})
}

// forged is the frame, now and then with the sender's own idea of an annotation behind it.
func (l *lottery) forged(frame []byte) []byte {
	if rapid.IntRange(0, 5).Draw(l.rt, "forged") > 0 {
		return frame
	}
	t := status.Trailer{Word: status.CryptoDone, WireLen: uint32(len(frame)), Received: 1}
	t.Add(status.Record{Portion: status.TransportPortion, Protocol: uint8(sa.ESP), SPI: 0x1001, Number: 7, State: status.ICVValid,
		IP: 14, IPsec: 34, Payload: 50, PayloadLen: uint16(max(0, min(80, len(frame)-50)))})
	return t.AppendTo(bytes.Clone(frame))
}

func slots(frames [][]byte) (all [][]byte) {
	for _, f := range frames {
		all = append(all, slot(f))
	}
	return all
}

// batch is the way of a batch by trailers, frame by frame, since a NIC that hears of
// deletions between two frames does so on either route.
func (h *host) batch(frames [][]byte) (clean [][]byte) {
	h.nic.At(h.now)
	for _, f := range slots(frames) {
		clean = append(clean, h.Batch([][]byte{h.nic.Process(f)})...)
	}
	h.nic.Publish()
	return clean
}

// batchAsValue is the way of a batch by value.
func (h *host) batchAsValue(frames [][]byte) [][]byte {
	h.nic.At(h.now)
	clean := h.BatchFrom(h.nic.Check, slots(frames), nil)
	h.nic.Publish()
	return clean
}

// account is all that can be seen of a computer, as text.
func (h *host) account() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%+v\n%+v\n% x\n% x\n%q %q\n", h.Summary(), h.events, h.mirrored, h.icmp, h.updates, h.deletes)
	var sas []string
	for _, s := range h.sad.List() {
		sas = append(sas, fmt.Sprintln("NIC:", s.Name, s.Top, s.Failed))
	}
	for s := range h.States() {
		sas = append(sas, fmt.Sprintln(s.Name, s.Window, s.T, s.Tally))
	}
	slices.Sort(sas)
	fmt.Fprintln(&b, sas)
	for _, r := range status.Reasons() {
		fmt.Fprint(&b, h.nic.Counters().Reason(r), " ")
	}
	for c := range status.Code(status.NumCodes) {
		fmt.Fprint(&b, h.nic.Counters().Code(c), " ")
	}
	return b.String()
}

// route is a way of a batch through NIC and transport.
type route struct {
	name string
	take func(h *host) func(frames [][]byte) [][]byte
}

var routes = []route{
	{"trailer", func(h *host) func([][]byte) [][]byte {
		return func(frames [][]byte) [][]byte {
			for i, f := range frames {
				frames[i] = h.nic.Process(f)
			}
			return h.Batch(frames)
		}
	}},
	{"value", func(h *host) func([][]byte) [][]byte {
		check := h.nic.Check
		return func(frames [][]byte) [][]byte { return h.BatchFrom(check, frames, nil) }
	}},
}

// The whole way of a good frame allocates nothing, on either route.
func TestNoAllocations(t *testing.T) {
	const runs = 50
	sas := []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel)}
	for _, r := range routes {
		h, s := newHost(t, setup{sas: sas}), sealer(t, sas...)
		take, batches := r.take(h), [][][]byte{}
		for range runs + 1 {
			batches = append(batches, slots([][]byte{framed(sealed(t, s, plain4()))}))
		}
		n := testing.AllocsPerRun(runs, func() {
			if len(take(batches[0])) != 1 {
				t.Errorf("%s: a frame is not delivered", r.name)
			}
			batches = batches[1:]
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a frame", r.name, n)
		}
	}
}

// BenchmarkReceive is the whole way of a frame through NIC and transport on either route,
// by the length of the clear packet. Copying the frame to its slot is part of it.
func BenchmarkReceive(b *testing.B) {
	unchecked := func(s *sa.SA) { s.ReplayOff = true }
	both := []*sa.SA{espSA(sa.Transport, unchecked), espSA(sa.Tunnel, unchecked)}
	for _, layout := range []struct {
		name string
		sas  []*sa.SA
	}{{"clear", nil}, {"transport", both[:1]}, {"tunnel+transport", both}} {
		for _, length := range []int{64, 1400} {
			for _, r := range routes {
				b.Run(fmt.Sprintf("%s/%d/%s", layout.name, length, r.name), func(b *testing.B) { r.benchmark(b, layout.sas, length) })
			}
		}
	}
}

func (r route) benchmark(b *testing.B, sas []*sa.SA, length int) {
	h := newHost(b, setup{sas: sas})
	packet := forge.UDP(nil, netip.AddrPortFrom(host4a, 4000), netip.AddrPortFrom(host4b, 5000), make([]byte, length-28))
	frame := framed(sealed(b, sealer(b, sas...), packet))
	take, buffer, batch := r.take(h), slot(frame), make([][]byte, 1)
	for b.Loop() {
		copy(buffer, frame)
		batch[0] = buffer
		if len(take(batch)) != 1 {
			b.Fatal("not delivered")
		}
	}
}
