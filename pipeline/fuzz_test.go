package pipeline_test

import (
	"bytes"
	"slices"
	"testing"

	"tapsec/esp"
	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// fuzzSAs are offloaded while fuzzing: every layout, addresses ignored so that
// mutated ones still match, and an SA without secrets whose inside the fuzzer
// can write.
func fuzzSAs() []*sa.SA {
	loose := func(s *sa.SA) { s.PadCheck = false }
	all := []*sa.SA{
		espSA(sa.Transport, anyAddress), espSA(sa.Tunnel, anyAddress, loose),
		ahSA(sa.Transport, anyAddress), ahSA(sa.Tunnel, anyAddress),
		espSA(sa.Transport, spi(0x3001), anyAddress, encap), espSA(sa.Tunnel, spi(0x3002), anyAddress, encap, esn),
	}
	free := bundle(sa.Transport, spi(0x3003), anyAddress)
	all = append(all, append(free, bundle(sa.Tunnel, spi(0x3004), anyAddress)...)...)
	for _, s := range []*sa.SA{espSA(sa.Transport, spi(0x3005), anyAddress), espSA(sa.Tunnel, spi(0x3006), anyAddress), ahSA(sa.Tunnel, spi(0x3007), anyAddress)} {
		all = append(all, undecidedSA(s))
	}
	return all
}

func fuzzSeeds(f *testing.F) {
	esp, ah, tun := espSA(sa.Transport), ahSA(sa.Transport), espSA(sa.Tunnel)
	blind, blindTun, blindAH := espSA(sa.Transport, spi(0x3005)), espSA(sa.Tunnel, spi(0x3006)), ahSA(sa.Tunnel, spi(0x3007))
	udp, udpTun := espSA(sa.Transport, spi(0x3001), encap), espSA(sa.Tunnel, spi(0x3002), encap, esn)
	for _, c := range []frameCase{ // one for each row that a sealed frame can show
		{sas: []*sa.SA{blind}}, {sas: []*sa.SA{blind, blindTun}}, {sas: []*sa.SA{blind, blindAH}}, {sas: []*sa.SA{tun, blindTun}},
		{sas: []*sa.SA{blindTun, tun}}, {sas: []*sa.SA{blindTun}, spoil: flipLast}, {sas: []*sa.SA{blind, tun}, mangle: mangled(tun, flipInside)},
		{sas: nil}, {sas: []*sa.SA{espSA(sa.Transport, spi(9))}}, {sas: []*sa.SA{esp}, spoil: set(20, 0x20)},
		{sas: []*sa.SA{esp}}, {sas: []*sa.SA{tun}}, {sas: []*sa.SA{ah}, spoil: flipLast}, {sas: []*sa.SA{esp}, spoil: flipLast},
		{sas: []*sa.SA{ahSA(sa.Tunnel)}, spoil: flipLast}, {sas: []*sa.SA{tun}, spoil: flipLast}, {sas: []*sa.SA{esp, tun}},
		{sas: []*sa.SA{ah, tun}, mangle: mangled(tun, flipInside)}, {sas: []*sa.SA{esp, tun}, mangle: mangled(tun, flipInside)},
		{sas: []*sa.SA{espSA(sa.Transport, spi(9)), tun}}, {sas: bundle(sa.Transport, spi(0x3003))},
		{sas: bundle(sa.Tunnel, spi(0x3004)), spoil: flipLast}, {sas: []*sa.SA{esp, ah}},
		{sas: []*sa.SA{espSA(sa.Transport, spi(0x3003))}}, {sas: []*sa.SA{esp}, spoil: shorten(20)},
		{sas: []*sa.SA{esp}, mangle: mangled(esp, forge.PadLength(255))}, {sas: []*sa.SA{esp}, mangle: mangled(esp, forge.ZeroPad)},
		{sas: []*sa.SA{tun, espSA(sa.Tunnel)}}, {sas: []*sa.SA{tun}, mangle: mangled(tun, forge.NextHeader(59))},
		{sas: []*sa.SA{udp}}, {sas: []*sa.SA{udp, tun}}, {sas: []*sa.SA{udp, udpTun}}, {sas: []*sa.SA{esp, udpTun}, tags: []uint32{0x81000001}},
		{sas: []*sa.SA{espSA(sa.Transport, v6)}, packet: extended(plain6(), 0, optionsMutable)},
		{sas: []*sa.SA{ahSA(sa.Transport, v6)}, packet: extended(plain6(), 43, routeDone)},
		{sas: []*sa.SA{ah}, packet: forge.Options(nil, plain4(), []byte{7, 4, 4, 0})},
	} {
		f.Add(c.seal(f).frame, false)
	}
	f.Add(plain4(), true)
	f.Add(plain6(), true)
	for _, a := range []*sa.SA{esp, ah, udp} {
		c := frameCase{sas: []*sa.SA{a}}
		f.Add(c.seal(f).frame[14:], true)
	}
	f.Add([]byte{}, false)
}

// FuzzProcess feeds frames, or behind a good ICV the inside of a tunnel, and
// asserts what holds for every frame there is.
func FuzzProcess(f *testing.F) {
	fuzzSeeds(f)
	sad := pipeline.NewSAD(sa.Profiles[0], 1)
	offload(f, sad, fuzzSAs()...)
	inPlace := pipeline.New(sad, pipeline.Options{})
	decap := pipeline.New(sad, pipeline.Options{Form: status.Decap})
	outer, err := esp.NewOutbound(espSA(sa.Tunnel), zeros{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, inside bool) {
		if inside {
			b = tunnelled(t, outer, b)
		}
		body, trailer := run(t, inPlace, b)
		if len(body) != max(len(b), status.MinFrame) || int(trailer.WireLen) != len(b) {
			t.Fatalf("%d bytes came out as %d, wire length %d", len(b), len(body), trailer.WireLen)
		}
		shape(t, &trailer)
		identical(t, b, body, &trailer)
		same(t, trailer, decap, b)
	})
}

// tunnelled seals bytes as what an ESP tunnel carries.
func tunnelled(t *testing.T, outer *esp.Outbound, inner []byte) []byte {
	next := uint8(4)
	if len(inner) > 0 && inner[0]>>4 == 6 {
		next = 41
	}
	sealed, err := outer.Seal(nil, inner[:min(len(inner), 60000)], next, 1)
	if err != nil {
		t.Fatal(err)
	}
	return forge.AppendFrame(nil, raw(50, gw4a, gw4b, sealed...))
}

// shape holds the word against the contract's section on it and against the
// records.
func shape(t *testing.T, trailer *status.Trailer) {
	t.Helper()
	w, records := trailer.Word, trailer.Records[:trailer.N]
	checked := map[status.Portion]bool{}
	var failure *status.Record
	for i := range records {
		r := &records[i]
		if r.State != status.NotProcessed {
			checked[r.Portion] = true
		}
		if r.State == status.FailedBefore || r.State == status.FailedAfter {
			if failure != nil {
				t.Fatalf("two failures: %+v", records)
			}
			failure = r
		}
		if (r.State == status.ICVValid) != (r.Reason == status.Verified) || (r.Code != 0) != (r == failure) {
			t.Fatalf("record %d contradicts itself: %+v", i, r)
		}
		if int(r.IP) >= int(r.IPsec) || r.IPsec > r.Payload || int(r.Payload)+int(r.PayloadLen) > int(trailer.WireLen) {
			t.Fatalf("record %d points outside: %+v", i, r)
		}
	}
	switch {
	case w&0xfff8 != 0, w.Code() >= status.NumCodes, w.Next() && !w.Done(), w.DeleteSA():
		t.Fatalf("word %s", w)
	case w.Done() != (len(checked) > 0), w.Next() != (len(checked) == 2):
		t.Fatalf("word %s over %+v", w, records)
	case failure == nil && w.Code() != 0, failure != nil && (w.Code() != failure.Code || trailer.Reason != failure.Reason):
		t.Fatalf("word %s, %s over %+v", w, trailer.Reason.String(), records)
	case checked[status.TransportPortion] && w.Next() && !checked[status.TunnelPortion]:
		t.Fatalf("word %s without a tunnel", w)
	case trailer.Reason == 0 || trailer.Omitted != 0:
		t.Fatalf("reason %d, %d records omitted", trailer.Reason, trailer.Omitted)
	}
}

// identical asserts that nothing differs but the ciphertext of verified ESP.
func identical(t *testing.T, in, out []byte, trailer *status.Trailer) {
	t.Helper()
	in, out = padded(slices.Clone(in)), slices.Clone(out)
	for _, r := range trailer.Records[:trailer.N] {
		if r.State == status.ICVValid && r.Protocol == uint8(sa.ESP) {
			from, to := int(r.Payload), int(r.Payload)+int(r.PayloadLen)+int(r.PadLen)+2
			copy(out[from:to], in[from:to])
		}
	}
	if !bytes.Equal(in, out) {
		t.Fatal("bytes of an unverified portion, or outside of any, were changed")
	}
}

// same asserts that the other form differs in nothing but the frame. Numbers
// may, since the ESN mark has moved.
func same(t *testing.T, trailer status.Trailer, decap *pipeline.Pipeline, frame []byte) {
	t.Helper()
	body, other := run(t, decap, frame)
	if other.Word != trailer.Word || other.Reason != trailer.Reason || other.N != trailer.N {
		t.Fatalf("decap form says %s %s, the other %s %s", other.Word, other.Reason.String(), trailer.Word, trailer.Reason.String())
	}
	if (other.Form == status.Decap) != (other.Removed > 0) || other.Removed > 2 || len(body) > max(len(frame), status.MinFrame) {
		t.Fatalf("%s, %d portions removed, %d bytes of %d", other.Form, other.Removed, len(body), len(frame))
	}
}
