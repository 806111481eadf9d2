package transport_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/ledger"
	"tapsec/internal/outbound"
	window "tapsec/internal/replay"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
	"tapsec/transport"
	"tapsec/wire"
)

var _ transport.Fallback = (*pipeline.Software)(nil)

// Two hosts, each behind a gateway, in both families.
var (
	host4a, host4b = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	host6a, host6b = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	gw4a, gw4b     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	gw6a, gw6b     = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	ours           = []netip.Addr{host4b, host6b, gw4b, gw6b}
)

// change alters an SA under construction.
type change func(*sa.SA)

func v6(s *sa.SA) {
	s.Src, s.Dst = host6a, host6b
	if s.Mode == sa.Tunnel {
		s.Src, s.Dst = gw6a, gw6b
	}
}
func encap(s *sa.SA)                     { s.Encap = true }
func esn(s *sa.SA)                       { s.ESN = true }
func never(s *sa.SA)                     { s.Offload = sa.Never }
func anySrc(s *sa.SA)                    { s.Src = netip.Addr{} }
func named(name string) change           { return func(s *sa.SA) { s.Name = name } }
func between(src, dst netip.Addr) change { return func(s *sa.SA) { s.Src, s.Dst = src, dst } }
func over(esp *sa.SA) change             { return func(s *sa.SA) { s.Bundle = esp.Name } }
func spi(n uint32) change {
	return func(s *sa.SA) { s.SPI, s.Name = n, fmt.Sprintf("%s-%x", s.Name, n) }
}
func selecting(l sa.Selector) change { return func(s *sa.SA) { s.Selector = &l } }

// espSA and ahSA make an SA of a mode: between the hosts for transport, between
// the gateways for tunnel, IPv4, pads checked.
func espSA(mode sa.Mode, changes ...change) *sa.SA {
	s := &sa.SA{Name: "esp-" + mode.String(), SPI: 0x1001, Protocol: sa.ESP, Mode: mode, PadCheck: true, Src: host4a, Dst: host4b}
	if mode == sa.Tunnel {
		s.SPI, s.Src, s.Dst = 0x2001, gw4a, gw4b
	}
	return made(s, "aes128gcm16", changes)
}

func ahSA(mode sa.Mode, changes ...change) *sa.SA {
	s := &sa.SA{Name: "ah-" + mode.String(), SPI: 0x1002, Protocol: sa.AH, Mode: mode, Src: host4a, Dst: host4b}
	if mode == sa.Tunnel {
		s.SPI, s.Src, s.Dst = 0x2002, gw4a, gw4b
	}
	return made(s, "sha256", changes)
}

func made(s *sa.SA, plain string, changes []change) *sa.SA {
	testkit.Suite(plain)(s)
	for _, c := range changes {
		c(s)
	}
	return s
}

// bundle is the ESP SA and the AH SA over it, in the order of sealing.
func bundle(mode sa.Mode, changes ...change) []*sa.SA {
	e := espSA(mode, append([]change{spi(0x3001)}, changes...)...)
	return []*sa.SA{e, ahSA(mode, append(append([]change{spi(0x3002)}, changes...), over(e))...)}
}

var message = []byte("the quick brown fox jumps over the lazy dog")

func plain4() []byte {
	return forge.UDP(nil, netip.AddrPortFrom(host4a, 4000), netip.AddrPortFrom(host4b, 5000), message)
}

func plain6() []byte {
	return forge.UDP(nil, netip.AddrPortFrom(host6a, 4000), netip.AddrPortFrom(host6b, 5000), message)
}

// tcp is a TCP segment with a right checksum.
func tcp(from, to netip.AddrPort) []byte {
	b := forge.UDP(nil, from, to, make([]byte, 12+len(message)))
	p, _ := wire.Addresses(b, 0)
	b[p.ProtoAt] = wire.ProtoTCP
	h := b[p.Header:]
	clear(h[4:])
	h[12] = 5 << 4
	copy(h[20:], message)
	p.Proto = wire.ProtoTCP
	wire.UpperSum(b, &p)
	return mended(b)
}

// mended has an IPv4 header a right checksum again.
func mended(b []byte) []byte {
	if b[0]>>4 == 4 {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], wire.Checksum(0, b[:int(b[0]&15)*4]))
	}
	return b
}

// zeros is a source of random numbers that makes frames the same each time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// sealer makes a Sealer of SAs, innermost first.
func sealer(t testing.TB, sas ...*sa.SA) *outbound.Sealer {
	t.Helper()
	s, err := outbound.NewSealer(zeros{}, sas...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed is what the Sealer makes of a packet next.
func sealed(t testing.TB, s *outbound.Sealer, packet []byte) []byte {
	t.Helper()
	b, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// once seals one packet, with number n for every SA.
func once(t testing.TB, n uint64, packet []byte, sas ...*sa.SA) []byte {
	t.Helper()
	s := sealer(t, sas...)
	for i := range sas {
		s.SetNumber(i, n)
	}
	return sealed(t, s, packet)
}

// mangled seals one packet of which the innermost SA makes something false.
func mangled(t testing.TB, n uint64, m forge.Mangle, packet []byte, sas ...*sa.SA) []byte {
	t.Helper()
	s := sealer(t, sas...)
	for i, a := range sas {
		s.SetNumber(i, n)
		packet = sealed(t, s.Stack(i), packet)
		if i == 0 {
			packet = forge.Reseal(packet, a, n, m)
		}
	}
	return packet
}

func framed(packet []byte, tags ...uint32) []byte { return forge.AppendFrame(nil, packet, tags...) }

// flipped changes the last byte: ESP's ICV, or what AH covers.
func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// setup is a computer with its NIC.
type setup struct {
	sas     []*sa.SA
	policy  []sa.Policy
	local   []netip.Addr // ours where nil
	profile string       // full where empty
	deaf    bool         // the NIC's control interface is not connected
	prepare func(*pipeline.SAD)
	ledger  *ledger.Ledger
}

// host is that computer: NIC, software, transport.
type host struct {
	*transport.Receiver
	tb       testing.TB
	sad      *pipeline.SAD
	nic      *pipeline.Pipeline
	software *pipeline.Software
	now      time.Time
	set      time.Duration // how far the NIC's time of day is wrong
	ledger   *ledger.Ledger

	events   []transport.Event
	mirrored [][]byte
	icmp     [][]byte
	updates  []string // SA and high half
	deletes  []string
}

// control is the NIC's control interface, as package cli has it.
type control struct{ *host }

func (c control) Update(s *sa.SA, high uint32) {
	c.updates = append(c.updates, fmt.Sprintf("%s %d", s.Name, high))
	if handle := c.sad.Handle(s.ID()); handle != 0 {
		_ = c.sad.Update(handle, high)
	}
}

func (c control) Delete(s *sa.SA) {
	c.deletes = append(c.deletes, s.Name)
	if handle := c.sad.Handle(s.ID()); handle != 0 {
		_ = c.sad.Delete(handle)
	}
}

// config divides SAs between NIC and transport as a configuration does.
func (s *setup) config(t testing.TB) *configs.Config {
	t.Helper()
	c := configs.Default()
	c.SAs = s.sas
	var err error
	if c.Profile, err = sa.ProfileByName(s.profile); err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *setup) addresses() []netip.Addr {
	if s.local == nil {
		return ours
	}
	if len(s.local) == 0 {
		return nil // every address
	}
	return s.local
}

var began = time.Unix(1_700_000_000, 0)

func newHost(t testing.TB, s setup) *host {
	t.Helper()
	c := s.config(t)
	h := &host{tb: t, sad: pipeline.NewSAD(c.Profile, 1), software: pipeline.NewSoftware(), ledger: s.ledger}
	if h.ledger == nil {
		h.ledger = ledger.New()
	}
	h.sad.Remember(h.ledger.Marks())
	h.software.Remember(h.ledger.Marks())
	if err := h.sad.Replace(c.Bundles()); err != nil {
		t.Fatal(err)
	}
	if s.prepare != nil {
		s.prepare(h.sad)
	}
	h.nic = pipeline.New(h.sad, pipeline.Options{})
	inbound := c.AllBundles()
	if err := h.software.Replace(inbound); err != nil {
		t.Fatal(err)
	}
	tc := transport.Config{
		SAs: inbound, Policy: s.policy, Local: s.addresses(), Fallback: h.software, Ledger: h.ledger,
		Audit:  func(e transport.Event) { h.events = append(h.events, e) },
		Mirror: func(b []byte) { h.mirrored = append(h.mirrored, bytes.Clone(b)) },
		ICMP:   func(b []byte) { h.icmp = append(h.icmp, bytes.Clone(b)) },
	}
	h.now = began
	h.ledger.Clock = func() time.Duration { return h.now.Sub(began) }
	if !s.deaf {
		tc.NIC = control{h}
	}
	var err error
	if h.Receiver, err = transport.New(tc); err != nil {
		t.Fatal(err)
	}
	h.now = began.Add(time.Second)
	return h
}

// replace puts other SAs in force, as a reload does, first where frames come in
// last.
func (h *host) replace(sas ...*sa.SA) {
	h.tb.Helper()
	s := setup{sas: sas}
	c := s.config(h.tb)
	for _, err := range []error{h.software.Replace(c.AllBundles()), h.Replace(c.AllBundles(), nil, ours), h.sad.Replace(c.Bundles())} {
		if err != nil {
			h.tb.Fatal(err)
		}
	}
}

// slot is a frame in a buffer as a receive queue's.
func slot(frame []byte) []byte {
	buffer := bytes.Repeat([]byte{0xa5}, len(frame)+status.Tailroom)
	return buffer[:copy(buffer, frame)]
}

// annotate is the NIC's work on a frame.
func (h *host) annotate(frame []byte) []byte {
	h.nic.At(h.now.Add(h.set))
	return h.nic.Process(slot(frame))
}

// receive is the whole way of a frame.
func (h *host) receive(frame []byte) ([]byte, transport.Verdict, transport.Reason) {
	return h.Judge(h.annotate(frame))
}

// delivers asserts that the frame is delivered as want.
func (h *host) delivers(frame, want []byte) {
	h.tb.Helper()
	clean, v, r := h.receive(frame)
	if !v.Clean() {
		h.tb.Errorf("%s (%s), want a packet", v, r)
		return
	}
	same(h.tb, clean, want)
}

// drops asserts the reason for which the frame is not delivered.
func (h *host) drops(frame []byte, want transport.Reason) {
	h.tb.Helper()
	h.dropped(h.annotate(frame), want)
}

// dropped is drops for an annotated frame.
func (h *host) dropped(annotated []byte, want transport.Reason) {
	h.tb.Helper()
	clean, v, r := h.Judge(annotated)
	if v != transport.Drop || r != want || clean != nil {
		h.tb.Errorf("%s (%s), %d bytes; want it dropped as %s", v, r, len(clean), want)
	}
}

func same(t testing.TB, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("delivered\n% x\nwant\n% x", got, want)
	}
}

// window is that of the SA.
func (h *host) window(name string) window.State {
	h.tb.Helper()
	return h.state(name).Window
}

func (h *host) state(name string) transport.SAState {
	h.tb.Helper()
	all := slices.Collect(h.States())
	i := slices.IndexFunc(all, func(s transport.SAState) bool { return s.Name == name })
	if i < 0 {
		h.tb.Fatalf("no SA %s", name)
	}
	return all[i]
}

// Shorter names for reasons that tests name often.
const (
	ecn    = transport.ECN
	icv    = transport.ICV
	replay = transport.Replay
)
