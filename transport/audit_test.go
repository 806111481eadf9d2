package transport_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"tapsec/internal/audit"
	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// A flood of one kind hides no event of another, and each drop is reported or
// counted by its reason, once (contract, What is logged).
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		esp := espSA(sa.Transport)
		stranger := espSA(sa.Transport, func(s *sa.SA) { s.SPI = 0xdead })
		tun := espSA(sa.Tunnel)
		h := newHost(t, setup{sas: []*sa.SA{esp, tun}})
		good := framed(once(t, 1, plain4(), esp))
		told := map[transport.Reason]uint64{}
		tell := func() (events int) {
			for _, e := range h.events {
				told[e.Reason] += e.Suppressed
				if !e.Silent {
					told[e.Reason]++
				}
			}
			events, h.events = len(h.events), nil
			return events
		}
		h.delivers(good, framed(plain4()))
		for n := range uint64(197) {
			h.drops(framed(once(t, n+1, plain4(), stranger)), transport.NoSA)
		}
		for range 50 {
			h.drops(flipped(framed(once(t, 2, plain4(), esp))), icv)
		}
		h.drops(flipped(framed(once(t, 2, plain4(), tun))), icv) // of another SA
		h.drops(good, replay)
		if tell() != 2*audit.PerSA+2 || told[icv] != 51 || told[replay] != 1 || told[transport.NoSA] != audit.PerSA {
			t.Errorf("events %v", told)
		}
		h.Tick(h.now.UnixNano())
		if tell() != 0 {
			t.Error("more events in the same second")
		}
		time.Sleep(time.Second)
		h.Tick(h.now.UnixNano())
		if tell() != 1 || told[transport.NoSA] != 197 {
			t.Errorf("once frames stop, what was left out is told: %v", told)
		}
		for range 100 {
			h.drops(flipped(framed(once(t, 2, plain4(), esp))), icv)
		}
		if h.Flush(); tell() != audit.PerSA+1 || told[icv] != 151 {
			t.Errorf("at the end, likewise: %v", told)
		}
	})
}

// An event's time is its frame's. Without a trailer there is none, and none is
// made up.
func TestEventTime(t *testing.T) {
	h := newHost(t, setup{sas: []*sa.SA{espSA(sa.Transport)}})
	h.drops(flipped(framed(once(t, 1, plain4(), espSA(sa.Transport)))), icv)
	h.dropped(make([]byte, 60), transport.NoAnnotation)
	if len(h.events) != 2 || !h.events[0].Time.Equal(h.now) || !h.events[1].Time.IsZero() {
		t.Errorf("events %+v", h.events)
	}
}

// What an event tells of a frame: the record at which the work ended, or else the
// header that nobody knows. Those that NIC or software failed go to the mirror, too.
func TestEventTells(t *testing.T) {
	esp, ah, six := espSA(sa.Transport), ahSA(sa.Transport), espSA(sa.Transport, v6, spi(0x1006))
	labelled := plain6()
	labelled[1], labelled[2], labelled[3] = 5, 6, 7
	stranger := func(s *sa.SA) { s.SPI = 0xdead }
	bare := once(t, 1, plain4(), espSA(sa.Transport, stranger))[:24] // an SPI, and no more
	bare[3] = 24
	less := append(once(t, 1, plain4(), espSA(sa.Transport, stranger))[:23], make([]byte, 23)...) // and not even that
	less[3] = 23
	tun := espSA(sa.Tunnel)
	_, later := fragments(once(t, 1, udp("10.1.0.1:1", "10.9.0.1:2"), espSA(sa.Transport, between(host4a, netip.MustParseAddr("10.9.0.1")))), 7)
	for name, c := range map[string]struct {
		frame    []byte
		want     transport.Event
		mirrored int
	}{
		"a wrong ICV": {flipped(framed(once(t, 7, plain4(), esp))), transport.Event{Reason: icv, Check: status.ESPICV,
			SA: esp.Name, Protocol: sa.ESP, SPI: esp.SPI, Number: 7, Src: host4a, Dst: host4b}, 1},
		"over IPv6": {flipped(framed(once(t, 7, labelled, six))), transport.Event{Reason: icv, Check: status.ESPICV,
			SA: six.Name, Protocol: sa.ESP, SPI: six.SPI, Number: 7, Src: host6a, Dst: host6b, FlowID: 0x50607}, 1},
		"a replay": {framed(once(t, 1, plain4(), esp)), transport.Event{Reason: replay, Check: status.Verified,
			SA: esp.Name, Protocol: sa.ESP, SPI: esp.SPI, Number: 1, Src: host4a, Dst: host4b}, 0},
		"ESP of nobody": {framed(once(t, 1, plain4(), espSA(sa.Transport, stranger))), transport.Event{Reason: transport.NoSA,
			Protocol: sa.ESP, SPI: 0xdead, Src: host4a, Dst: host4b}, 0},
		"AH of nobody": {framed(once(t, 1, plain4(), ahSA(sa.Transport, stranger))), transport.Event{Reason: transport.NoSA,
			Protocol: sa.AH, SPI: 0xdead, Src: host4a, Dst: host4b}, 0},
		"an SPI and no more": {framed(mended(bare)), transport.Event{Reason: transport.NoSA,
			Protocol: sa.ESP, SPI: 0xdead, Src: host4a, Dst: host4b}, 0},
		"three bytes of an SPI": {framed(mended(less)), transport.Event{Reason: transport.NoSA, Src: host4a, Dst: host4b}, 0},
		"a wrong ICV in a tunnel": {framed(once(t, 7, flipped(once(t, 9, plain4(), esp)), tun)), transport.Event{Reason: icv, Check: status.ESPICV,
			SA: esp.Name, Protocol: sa.ESP, SPI: esp.SPI, Number: 9, Src: host4a, Dst: host4b}, 1},
		"a pad that is none": {framed(mangled(t, 7, forge.ZeroPad, plain4(), esp)), transport.Event{Reason: transport.Padding, Check: status.PadBytes,
			SA: esp.Name, Protocol: sa.ESP, SPI: esp.SPI, Number: 7, Src: host4a, Dst: host4b}, 1},
		"a later fragment": {framed(later), transport.Event{Reason: transport.Discard, Src: host4a, Dst: netip.MustParseAddr("10.9.0.1")}, 0},
		"no IP packet":     {append(append(bytes.Repeat([]byte{0x45}, 12), 0x88, 0xe5), make([]byte, 80)...), transport.Event{Reason: transport.Hidden}, 0},
		"in clear":         {framed(udp("10.1.0.1:1", "10.2.0.2:6000")), transport.Event{Reason: transport.Discard, Src: host4a, Dst: host4b}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			discard := sa.Policy{Match: sa.Selector{DstPorts: sa.Ports{First: 6000, Last: 6000}}, Action: sa.Discard}
			h := newHost(t, setup{sas: []*sa.SA{esp, ah, six, tun}, policy: []sa.Policy{discard, {Match: sa.Selector{Dst: prefix("10.9.0.0/16")}, Action: sa.Discard}, {Action: sa.Bypass}}})
			h.delivers(framed(once(t, 1, plain4(), esp)), framed(plain4()))
			h.drops(c.frame, c.want.Reason)
			c.want.Time = h.now
			if len(h.events) != 1 || h.events[0] != c.want || len(h.mirrored) != c.mirrored {
				t.Errorf("told %+v, want %+v; %d frames in the mirror, want %d", h.events, c.want, len(h.mirrored), c.mirrored)
			}
		})
	}
}

// What has done its duty is dropped without a word (contract, What is logged).
func TestQuiet(t *testing.T) {
	natted, tun := espSA(sa.Transport, encap), espSA(sa.Tunnel)
	first, _ := fragments(plain4(), 7)
	h := newHost(t, setup{sas: []*sa.SA{natted, tun}})
	h.drops(framed(mangled(t, 1, forge.NextHeader(59), plain4(), tun)), transport.Dummy)
	h.drops(framed(forge.UDP(nil, netip.AddrPortFrom(host4a, 4500), netip.AddrPortFrom(host4b, 4500), []byte{0xff})), transport.KeepAlive)
	h.receive(framed(first))
	h.drops(framed(first), transport.FragmentDuplicate)
	h.notices()
}

// A drop counts on the innermost SA that the frame reached, and once in the sum
// of all frames.
func TestCounts(t *testing.T) {
	esp, tun := espSA(sa.Transport), espSA(sa.Tunnel)
	both(t, setup{sas: []*sa.SA{esp, tun}}, func(t *testing.T, h *host) {
		h.delivers(framed(once(t, 1, plain4(), esp, tun)), framed(plain4()))
		h.drops(framed(once(t, 2, flipped(once(t, 2, plain4(), esp)), tun)), icv)
		h.drops(framed(once(t, 2, plain4(), esp, tun)), replay)
		inner, outer := h.state(esp.Name).Tally, h.state(tun.Name).Tally
		want := transport.Tally{Packets: 1, Bytes: 8 + uint64(len(message))}
		want.Dropped[icv] = 1
		if inner != want {
			t.Errorf("inside %+v, want %+v", inner, want)
		}
		want = transport.Tally{Packets: 2, Bytes: 2 * uint64(len(once(t, 1, plain4(), esp)))}
		want.Dropped[replay] = 1
		if outer != want {
			t.Errorf("outside %+v, want %+v", outer, want)
		}
		if s := h.Summary(); s.Frames != 3 || s.Verdicts["drop"] != 2 || fmt.Sprint(s.Reasons) != "map[icv:1 replay:1]" {
			t.Errorf("all: %+v", s)
		}
		for range h.States() {
			break // who has seen enough may stop
		}
	})
}

// Who gives neither Audit nor Mirror goes without.
func TestNobodyIsTold(t *testing.T) {
	esp := espSA(sa.Transport)
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	alone, err := transport.New(transport.Config{SAs: [][]*sa.SA{{esp}}, Fallback: h.software, Ledger: h.ledger})
	if err != nil {
		t.Fatal(err)
	}
	if _, v, r := alone.Judge(h.annotate(flipped(framed(once(t, 1, plain4(), esp))))); v != transport.Drop || r != icv {
		t.Errorf("%s (%s)", v, r)
	}
	echo := framed(forge.Echo(nil, host4a, host4b, 1, 1, nil))
	if _, v, r := alone.Judge(h.annotate(echo)); v != transport.Deliver {
		t.Errorf("%s (%s)", v, r)
	}
	if v := fmt.Sprint(transport.Verdict(0), transport.Drop, transport.Verdict(5)); v != "verdict(0) drop verdict(5)" {
		t.Error(v)
	}
}

// Failures tells once of what the NIC or software found wrong, by SA.
func TestFailures(t *testing.T) {
	esp := espSA(sa.Transport)
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	good := framed(once(t, 1, plain4(), esp))
	h.delivers(good, framed(plain4()))
	h.drops(good, replay)
	if all := h.Failures(); len(all) != 0 {
		t.Errorf("a replay is no failure: %v", all)
	}
	for n := uint64(1); n <= 3; n++ {
		for range n {
			h.drops(flipped(framed(once(t, 2, plain4(), esp))), icv)
		}
		if all := h.Failures(); len(all) != 1 || all[0] != (transport.Failure{SA: esp.Name, Reason: icv, Frames: n, First: n == 1}) {
			t.Errorf("%d failures: %+v", n, all)
		}
	}
	if all := h.Failures(); len(all) != 0 {
		t.Errorf("told before: %v", all)
	}
}
