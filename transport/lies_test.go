package transport_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// FuzzLies: whatever a NIC says of a frame, in a trailer that is whole, or in one that is not, the transport goes on.
// What it delivers is an Ethernet frame, no longer than what came, unless it is reassembled.
func FuzzLies(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, []byte{0, 1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, seed uint64, body []byte) { lies(t, rand.New(rand.NewPCG(seed, 1)), body, 60) })
}

func lies(t *testing.T, r *rand.Rand, body []byte, frames int) {
	both := bundle(sa.Transport)
	outer, inner := espSA(sa.Tunnel, named("outer"), spi(0x2001)), espSA(sa.Transport, esn, named("inner"), spi(0x2002))
	road := espSA(sa.Transport, encap, named("road"), spi(0x2003))
	h := newHost(t, setup{sas: append(both, outer, inner, road, ahSA(sa.Transport, named("ah"), spi(0x2004)))})
	seeds := [][]byte{framed(plain4()), framed(plain6()), framed(once(t, 1, plain4(), outer)), framed(once(t, 2, plain4(), inner)),
		framed(once(t, 3, plain4(), inner, outer)), framed(once(t, 4, plain4(), road)), framed(once(t, 5, plain4(), both...)),
		framed(once(t, 6, plain4(), inner), 0x81000007), append(framed(plain4()), body...),
		framed(forge.UDP(nil, netip.MustParseAddrPort("10.1.0.1:4500"), netip.MustParseAddrPort("10.2.0.2:4500"), body))}
	for range frames {
		frame := bytes.Clone(seeds[r.IntN(len(seeds))])
		annotated := h.annotate(frame)
		annotated = tampered(t, annotated, func(a *status.Trailer) { lie(r, a) })
		for range r.IntN(3) {
			annotated[r.IntN(len(annotated))] ^= 1 << r.IntN(8)
		}
		clean, v, reason := h.Judge(annotated)
		if (clean != nil) != (v == transport.Deliver || v == transport.Software) || clean != nil && (len(clean) < 14 || len(clean) > len(annotated)) {
			t.Fatalf("%v, %v: %d bytes of %d", v, reason, len(clean), len(annotated))
		}
	}
}

// lie alters an annotation, most often so that word and records still agree.
func lie(r *rand.Rand, a *status.Trailer) {
	for range 1 + r.IntN(4) {
		rec := &a.Records[r.IntN(len(a.Records))]
		small := uint16(r.IntN(100))
		switch r.IntN(14) {
		case 0:
			rec.Portion = status.Portion(r.IntN(4))
		case 1:
			rec.Protocol = []uint8{50, 51, 0, 17, 255}[r.IntN(5)]
		case 2:
			rec.SPI = 0x2000 + r.Uint32N(6)
		case 3:
			rec.Number = []uint64{0, 1, 1<<32 - 1, 1 << 32, 1<<64 - 1, r.Uint64()}[r.IntN(6)]
		case 4:
			rec.State = status.State(r.IntN(6))
		case 5:
			rec.Code = status.Code(r.IntN(9))
		case 6:
			rec.Reason = status.Reason(r.IntN(50))
		case 7:
			rec.IP = small
		case 8:
			rec.IPsec = rec.IP + small
		case 9:
			rec.Payload = rec.IPsec + small
		case 10:
			rec.PayloadLen = small * uint16(r.IntN(4))
		case 11:
			rec.IVLen, rec.PadLen, rec.ICVLen, rec.NextHeader = uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32())
		case 12:
			a.N = uint8(r.IntN(len(a.Records) + 1))
		case 13:
			a.Received = []int64{0, -1 << 63, 1<<63 - 1, int64(r.Uint64())}[r.IntN(4)]
		}
	}
	if r.IntN(4) == 0 {
		return
	}
	a.Word = agreeing(a)
}

// agreeing is the word that the records make.
func agreeing(a *status.Trailer) status.Word {
	var tunnel, other bool
	code := status.Success
	for _, rec := range a.Records[:a.N] {
		if rec.State != status.NotProcessed {
			tunnel, other = tunnel || rec.Portion == status.TunnelPortion, other || rec.Portion != status.TunnelPortion
		}
		if code == status.Success {
			code = rec.Code
		}
	}
	w := status.Word(0).WithCode(code)
	if tunnel || other {
		w |= status.CryptoDone
	}
	if tunnel && other {
		w |= status.NextCryptoDone
	}
	return w
}
