package hosts

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
	"tapsec/wire"
)

// Every failing frame of the contract's table, replays, clear frames and forged
// trailers come from the wire while a TCP transfer runs. The transfer arrives
// whole, b's stack sees none of the others, and each is accounted for.
func TestNothingBadReachesTheStack(t *testing.T) {
	if !rig.Own(t) {
		return
	}
	if err := rig.Setup(); err != nil {
		t.Fatal(err)
	}
	rig.Require(t)
	s, err := NewPair(0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.ping(netip.MustParseAddr("10.77.0.2")); err != nil {
		t.Fatal(err)
	}
	bad, err := s.hostile()
	if err != nil {
		t.Fatal(err)
	}
	failing := s.failing(t)
	strangers := s.watch(t)
	once := s.inject(failing, 1)
	if once() != 1 {
		t.Fatal("the failing frames did not go out")
	}
	stop := s.inject(bad, -1)
	_, err = s.transfer(8 << 20)
	rounds := stop()
	if err != nil || rounds == 0 {
		t.Errorf("transfer while %d rounds of bad frames came: %v", rounds, err)
	}
	want := map[transport.Reason]int{}
	for _, h := range failing {
		want[h.reason]++
	}
	for _, h := range bad {
		want[h.reason] += rounds
	}
	if !s.settled(want) {
		t.Errorf("of the bad frames some are in no counter: wanted %v, the wire's queue lost %d", want, s.lost())
	}
	if n := strangers(); n != 0 {
		t.Errorf("b's stack saw %d frames that are not a's", n)
	}
	sum := s.b.Summary().Transport
	for _, reason := range transport.Reasons() {
		if got := int(sum.Reasons[reason.String()]); got > want[reason] {
			t.Errorf("%s: %d frames, sent %d", reason, got, want[reason])
		}
	}
	if sum.Frames != sum.Verdicts["deliver"]+sum.Verdicts["software"]+sum.Verdicts["held"]+sum.Verdicts["drop"] {
		t.Errorf("the verdicts do not add up: %+v", sum)
	}
}

// failing gives b the SAs of the contract's table, and returns those of its
// frames that fail.
func (s *Pair) failing(t *testing.T) []hostileFrame {
	t.Helper()
	c := *s.config
	for _, h := range Plan() {
		if h.Name == "b" {
			for _, a := range h.Addresses {
				c.Local = append(c.Local, a.Addr())
			}
		}
	}
	known := map[sa.ID]bool{}
	var frames []hostileFrame
	for _, lab := range conformance.Contract() {
		if lab.Name != "layers" && lab.Name != "malformed" {
			continue
		}
		for _, bundle := range lab.Bundles {
			for _, one := range bundle {
				if !known[one.ID()] {
					c.SAs = append(c.SAs, one)
					c.Local = append(c.Local, one.Dst)
				}
				known[one.ID()] = true
			}
		}
		for _, one := range lab.Cases {
			if one.Word.Code() != status.Success {
				frames = append(frames, hostileFrame{one.Row + " " + one.Title, one.Frame, reasonFor(one.Reason)})
			}
		}
	}
	s.config = &c
	if err := s.b.Reload(); err != nil {
		t.Fatal(err)
	}
	return frames
}

// reasonFor is the transport's word for what the NIC found.
func reasonFor(r status.Reason) transport.Reason {
	switch r {
	case status.AHICV, status.ESPICV:
		return transport.ICV
	case status.ProtocolMismatch, status.BundleMismatch:
		return transport.Protocol
	case status.PadBytes:
		return transport.Padding
	}
	return transport.Length
}

// watch counts the frames that b's stack receives and that a did not send.
func (s *Pair) watch(t *testing.T) (strangers func() uint64) {
	t.Helper()
	var socket *rig.Socket
	if err := s.ns["b"].Do(func() (err error) {
		socket, err = rig.OpenSocket("stack0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var n atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			frame, err := socket.Receive(time.Minute)
			if err != nil {
				return
			}
			if strange(frame) {
				t.Logf("on b's stack: %x", frame[:min(len(frame), 64)])
				n.Add(1)
			}
		}
	}()
	return func() uint64 {
		socket.Close()
		<-done
		return n.Load()
	}
}

// strange tells whether a frame is none that a's stack sends here: TCP, ICMP, ARP
// and what IPv6 needs.
func strange(frame []byte) bool {
	etherType, l3, _ := wire.Ethernet(frame)
	if etherType == 0x0806 {
		return false
	}
	p, ok := wire.Addresses(frame, l3)
	a4, a6 := netip.MustParseAddr("10.77.0.1"), netip.MustParsePrefix("fd77::/64")
	link := netip.MustParsePrefix("fe80::/10")
	udp := ok && p.Proto == wire.ProtoUDP && binary.BigEndian.Uint16(frame[p.Header:]) == 9
	joins := p.Src.IsUnspecified() && p.Dst.IsMulticast() // a's MLD and duplicate address detection
	return !ok || udp || p.Src != a4 && !a6.Contains(p.Src) && !link.Contains(p.Src) && !joins
}
