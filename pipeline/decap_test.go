package pipeline_test

import (
	"bytes"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// The IPv4 checksum is mended by what changed only: a right one is right
// afterwards, a wrong one stays wrong by as much (contract, Decap form; RFC
// 1624).
func TestDecapChecksum(t *testing.T) {
	for _, sas := range everyTransport() {
		for _, spoiled := range []uint16{0, 1, 0x00ff, 0xfffe} {
			for payload := range 40 {
				c := frameCase{sas: sas, packet: raw(17, host4a, host4b, make([]byte, payload)...)}
				frame := c.seal(t).frame
				frame[24] ^= byte(spoiled >> 8)
				frame[25] ^= byte(spoiled)
				body, trailer := process(t, c.nic(t), pipeline.Options{Form: status.Decap}, frame)
				if trailer.Removed != 1 {
					t.Fatalf("removed %d", trailer.Removed)
				}
				if right := wire.Checksum(0, body[14:34]) == 0; right != (spoiled == 0) {
					t.Errorf("checksum changed by %#04x on the way: right is %v", spoiled, right)
				}
			}
		}
	}
}

// An unbundled AH whose ESP is not offloaded goes alone; the ESP stays as it
// came (contract, Bundles and decap form).
func TestDecapAHOverForeignESP(t *testing.T) {
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport)
	runAll(t, []frameCase{{sas: []*sa.SA{esp, ah}, absent: []*sa.SA{esp}, word: 2, reason: status.Verified, records: []outcome{good}}})
}

// Without a trailer the frame comes back alone, and is not padded.
func TestNoTrailer(t *testing.T) {
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		c := frameCase{sas: []*sa.SA{espSA(sa.Tunnel)}}
		s := c.seal(t)
		want := s.opened(1)
		if form == status.Decap {
			want = forge.AppendFrame(nil, plain4())
		}
		out := pipeline.New(c.nic(t), pipeline.Options{Form: form, NoTrailer: true}).Process(slices.Clone(s.frame))
		if !bytes.Equal(out, want) {
			t.Errorf("%s: % x\nwant % x", form, out, want)
		}
	}
}

// A batch is processed in order, one frame out for one in, and counted once it
// is done.
func TestBatchAndCounters(t *testing.T) {
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport)
	both := frameCase{sas: []*sa.SA{esp}, also: []*sa.SA{ah}}
	badAH := frameCase{sas: []*sa.SA{ah}, spoil: flipLast}
	clear := forge.AppendFrame(nil, plain4())
	p := pipeline.New(both.nic(t), pipeline.Options{Queue: 7})
	in := [][]byte{both.seal(t).frame, clear, badAH.seal(t).frame, slices.Clone(clear)}
	out := p.Batch(in)
	for i, want := range []status.Reason{status.Verified, status.NoIPsec, status.AHICV, status.NoIPsec} {
		_, trailer, err := status.Split(out[i])
		if err != nil || trailer.Reason != want || trailer.Ordinal != uint64(i+1) || trailer.Received == 0 || trailer.Queue != 7 {
			t.Errorf("frame %d: %v %+v", i, err, trailer)
		}
	}
	counters := p.Counters()
	if n := counters.Reason(status.NoIPsec); n != 2 {
		t.Errorf("%d frames without IPsec, want 2", n)
	}
	if s, f := counters.Code(status.Success), counters.Code(status.TransportAHAuthFailed); s != 3 || f != 1 {
		t.Errorf("%d successes and %d failures, want 3 and 1", s, f)
	}
	p.Process(slices.Clone(clear))
	if n := counters.Reason(status.NoIPsec); n != 2 {
		t.Error("counters moved before the batch's end")
	}
	p.Batch([][]byte{slices.Clone(clear)})
	if s, n := counters.Code(status.Success), counters.Reason(status.NoIPsec); s != 5 || n != 4 {
		t.Errorf("after another batch %d successes and %d frames without IPsec, want 5 and 4", s, n)
	}
}

// Adds, deletes and switches beside traffic: every frame is either good or left
// alone. Run with -race.
func TestChangesBesideTraffic(t *testing.T) {
	sad := pipeline.NewSAD(sa.Profiles[0], 2)
	inner, outer := espSA(sa.Transport, esn), espSA(sa.Tunnel)
	offload(t, sad, outer)
	c := frameCase{sas: []*sa.SA{inner, outer}}
	frame := c.seal(t).frame
	done := make(chan struct{})
	for worker := range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			p := pipeline.New(sad, pipeline.Options{Worker: worker})
			for range 3000 {
				_, trailer, err := status.Split(p.Process(slices.Clone(frame)))
				if err != nil || trailer.Word != 2 && trailer.Word != 6 {
					t.Errorf("%v %s %s", err, trailer.Word, trailer.Reason)
					return
				}
			}
		}()
	}
	for range 300 {
		handle, err := sad.Add(inner)
		if err != nil {
			t.Error(err)
			break
		}
		if err := sad.Delete(handle); err != nil {
			t.Error(err)
			break
		}
	}
	<-done
	<-done
}
