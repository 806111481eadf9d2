package strongswan

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// checker holds each frame of a record against what a sent.
type checker struct {
	t     *testing.T
	nic   *pipeline.Pipeline // in place, with both keys from the start
	sas   map[uint32]*seen   // by SPI
	spare []byte
}

// seen is what has been met of one SA.
type seen struct {
	packets          [][]byte // sealed by it, by their numbers; nil once met
	before, verified int      // frames that came before the key did, and after
	full             int      // of the verified ones, with a long packet
}

// check goes through a record of the life of two SAs, the second one having taken
// over from the first.
//
//   - No frame is lost, made or moved: tapsec's i-th is the wire's i-th, numbered.
//   - Before tapsec has the key of an SA: word 0, udp-no-sa, the frame as it was.
//   - From then on: word 2, verified, SPI and sequence number of the wire, and the
//     frame with the packet that a's stack sent in the tunnel's place, byte for byte.
//   - The sequence numbers of an SA are 1, 2, 3 ..., each once. The kernel of a may
//     put them on the wire in another order; charon seals in the order of its stack.
//   - All else: word 0 and its reason, the frame as it was.
//   - What b sends comes to a untouched.
func check(t *testing.T, r record, sas []*sa.SA) map[uint32]*seen {
	t.Helper()
	profile, err := sa.ProfileByName("full")
	if err != nil {
		t.Fatal(err)
	}
	sad := pipeline.NewSAD(profile, 1)
	c := checker{t: t, nic: pipeline.New(sad, pipeline.Options{}), sas: map[uint32]*seen{}}
	for _, s := range sas {
		if _, err := sad.Add(s); err != nil {
			t.Fatal(err)
		}
		n := r.count(s.SPI)
		c.sas[s.SPI] = &seen{packets: r.sent[:n]}
		r.sent = r.sent[n:]
	}
	var ordinal uint64
	for i, w := range r.wire {
		body, tr, err := status.Split(r.host[i])
		if err != nil {
			t.Fatalf("frame %d: %v\n%x", i, err, r.host[i])
		}
		if i > 0 && tr.Ordinal != ordinal+1 || int(tr.WireLen) != len(w.bytes) || tr.Omitted != 0 || tr.Queue != 0 {
			t.Fatalf("frame %d of %d bytes after number %d: %+v", i, len(w.bytes), ordinal, tr)
		}
		ordinal = tr.Ordinal
		c.frame(i, w, body, &tr)
		if t.Failed() {
			t.Fatalf("frame %d\non the wire %x\ndelivered   %x", i, w.bytes, body)
		}
	}
	for i, b := range r.back {
		if !bytes.Equal(b, r.returned[i]) {
			t.Fatalf("frame %d back\nsent     %x\nreceived %x", i, b, r.returned[i])
		}
	}
	for spi, s := range c.sas {
		if s.verified == 0 {
			t.Errorf("SPI %08x: %d frames without its key and none with it", spi, s.before)
		}
	}
	return c.sas
}

// take gives the packet that was sealed with a number, once.
func (s *seen) take(seq uint32) (packet []byte) {
	if i := int(seq) - 1; i >= 0 && i < len(s.packets) {
		packet, s.packets[i] = s.packets[i], nil
	}
	return packet
}

func (c *checker) frame(i int, w frame, body []byte, tr *status.Trailer) {
	c.t.Helper()
	reason := map[kind]status.Reason{other: status.NoIPsec, arp: status.NotIP, ike: status.IKE, keepAlive: status.KeepAlive, esp: status.UDPNoSA}[w.kind]
	if w.kind == esp {
		s := c.sas[w.spi]
		if s == nil {
			c.t.Errorf("SPI %08x is that of no SA", w.spi)
			return
		}
		packet := s.take(w.seq)
		if packet == nil {
			c.t.Errorf("SPI %08x: number %d is not one of 1 to %d, or has come before", w.spi, w.seq, len(s.packets))
			return
		}
		c.inPlace(w, packet)
		if tr.Reason == status.Verified {
			s.verified++
			if len(packet) > 1000 {
				s.full++
			}
			c.opened(w, packet, body, tr)
			return
		}
		if s.before++; s.verified > 0 {
			c.t.Errorf("SPI %08x was known before, and now: %s", w.spi, tr.Reason)
		}
	}
	if tr.Word != 0 || tr.Reason != reason || tr.N != 0 || tr.Removed != 0 {
		c.t.Errorf("word %s, %s, %d records; want 00000000 and %s", tr.Word, tr.Reason, tr.N, reason)
	}
	if padded := pad(w.bytes); !bytes.Equal(body, padded) {
		c.t.Error("bytes changed though nothing was opened")
	}
}

// opened is a frame without its tunnel.
func (c *checker) opened(w frame, packet, body []byte, tr *status.Trailer) {
	c.t.Helper()
	c.verdict(w, packet, tr, status.Decap)
	want := append(bytes.Clone(w.bytes[:12]), etherType(packet)...)
	if want = pad(append(want, packet...)); !bytes.Equal(body, want) {
		c.t.Errorf("want        %x", want)
	}
}

// inPlace leads the wire's frame through an appliance of the other form.
func (c *checker) inPlace(w frame, packet []byte) {
	c.t.Helper()
	c.spare = append(c.spare[:0], w.bytes...)
	body, tr, err := status.Split(c.nic.Process(c.spare))
	if err != nil {
		c.t.Error(err)
		return
	}
	c.verdict(w, packet, &tr, status.InPlace)
	at, n := int(tr.Records[0].Payload), int(tr.Records[0].PayloadLen)
	if len(body) != len(w.bytes) || !bytes.Equal(body[:at], w.bytes[:at]) || !bytes.Equal(body[at:at+n], packet) {
		c.t.Errorf("in place: got %x\nwant inside  %x", body, packet)
	}
}

// verdict is the trailer of a good tunnel.
func (c *checker) verdict(w frame, packet []byte, tr *status.Trailer, form status.Form) {
	c.t.Helper()
	got := tr.Records[0]
	want := status.Record{Portion: status.TunnelPortion, Protocol: uint8(sa.ESP), SPI: w.spi, Number: uint64(w.seq),
		State: status.ICVValid, Code: status.Success, Reason: status.Verified, PayloadLen: uint16(len(packet)), NextHeader: 4, IP: 14}
	if packet[0]>>4 == 6 {
		want.NextHeader = 41
	}
	want.IPsec = want.IP + 20 + 8
	if w.bytes[12] == 0x86 {
		want.IPsec += 20
	}
	// What the suite decides is for other tests.
	want.Handle, want.Payload, want.IVLen, want.PadLen, want.ICVLen = got.Handle, got.Payload, got.IVLen, got.PadLen, got.ICVLen
	if tr.Word != 2 || tr.Reason != status.Verified || tr.Form != form || tr.Removed != uint8(form) || tr.N != 1 || got != want {
		c.t.Errorf("word %s, %s, form %s, %d records:\n%+v, want\n%+v", tr.Word, tr.Reason, tr.Form, tr.N, got, want)
	}
}

func pad(frame []byte) []byte {
	return append(bytes.Clone(frame), make([]byte, max(0, status.MinFrame-len(frame)))...)
}

func etherType(packet []byte) []byte {
	if packet[0]>>4 == 6 {
		return binary.BigEndian.AppendUint16(nil, uint16(layers.EthernetTypeIPv6))
	}
	return binary.BigEndian.AppendUint16(nil, uint16(layers.EthernetTypeIPv4))
}
