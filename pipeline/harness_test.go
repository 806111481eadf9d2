package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// Two hosts, each behind a gateway, in both families.
var (
	host4a, host4b = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	host6a, host6b = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	gw4a, gw4b     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	gw6a, gw6b     = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// change alters an SA under construction.
type change func(*sa.SA)

func v6(s *sa.SA) {
	s.Src, s.Dst = host6a, host6b
	if s.Mode == sa.Tunnel {
		s.Src, s.Dst = gw6a, gw6b
	}
}
func encap(s *sa.SA) { s.Encap = true }
func esn(s *sa.SA)   { s.ESN = true }
func spi(n uint32) change {
	return func(s *sa.SA) { s.SPI, s.Name = n, fmt.Sprintf("%s-%x", s.Name, n) }
}
func over(esp *sa.SA) change             { return func(s *sa.SA) { s.Bundle = esp.Name } }
func between(src, dst netip.Addr) change { return func(s *sa.SA) { s.Src, s.Dst = src, dst } }

// espSA and ahSA make an SA of a mode: between the hosts for transport, between
// the gateways for tunnel, IPv4, pads checked.
func espSA(mode sa.Mode, changes ...change) *sa.SA {
	s := &sa.SA{Name: "esp-" + mode.String(), SPI: 0x1001, Protocol: sa.ESP, Mode: mode, PadCheck: true, Src: host4a, Dst: host4b}
	if mode == sa.Tunnel {
		s.SPI, s.Src, s.Dst = 0x2001, gw4a, gw4b
	}
	testkit.Suite("aes128gcm16")(s)
	for _, c := range changes {
		c(s)
	}
	return s
}

func ahSA(mode sa.Mode, changes ...change) *sa.SA {
	s := &sa.SA{Name: "ah-" + mode.String(), SPI: 0x1002, Protocol: sa.AH, Mode: mode, Src: host4a, Dst: host4b}
	if mode == sa.Tunnel {
		s.SPI, s.Src, s.Dst = 0x2002, gw4a, gw4b
	}
	testkit.Suite("sha256")(s)
	for _, c := range changes {
		c(s)
	}
	return s
}

// bundle is the ESP SA and the AH SA over it, in the order of sealing.
func bundle(mode sa.Mode, changes ...change) []*sa.SA {
	e := espSA(mode, changes...)
	return []*sa.SA{e, ahSA(mode, append(changes, over(e))...)}
}

var message = []byte("the quick brown fox jumps over the lazy dog")

func plain4() []byte {
	return forge.UDP(nil, netip.AddrPortFrom(host4a, 4000), netip.AddrPortFrom(host4b, 5000), message)
}

func plain6() []byte {
	return forge.UDP(nil, netip.AddrPortFrom(host6a, 4000), netip.AddrPortFrom(host6b, 5000), message)
}

// outcome is what one record is to say: a frame's records outermost first.
type outcome struct {
	state  status.State
	reason status.Reason
}

var (
	good     = outcome{status.ICVValid, status.Verified}
	badAH    = outcome{status.FailedBefore, status.AHICV}
	badESP   = outcome{status.FailedBefore, status.ESPICV}
	notTried = outcome{status.NotProcessed, status.NotTried}
)

func left(r status.Reason) outcome   { return outcome{status.NotProcessed, r} }
func failed(r status.Reason) outcome { return outcome{status.FailedBefore, r} }
func after(r status.Reason) outcome  { return outcome{status.FailedAfter, r} }

// frameCase is one frame and all that is to come of it.
type frameCase struct {
	name    string
	sas     []*sa.SA                // innermost first, as they seal
	absent  []*sa.SA                // those of them that are not offloaded
	also    []*sa.SA                // offloaded, but not used to seal
	packet  []byte                  // what is sealed; plain4 where nil
	mangle  map[*sa.SA]forge.Mangle // of what the SA seals
	numbers map[*sa.SA]uint64       // sequence numbers other than 1
	tags    []uint32                // VLAN tags
	ahLen   int                     // of an AH that seal does not make
	spoil   func(b []byte) []byte   // changes the sealed frame
	prepare func(*pipeline.SAD)     // switches
	profile string                  // full where empty

	word    status.Word
	reason  status.Reason
	records []outcome
	fix     func(i int, r *status.Record) // corrects what the case expects of record i
	inPlace bool                          // decap form delivers the frame in place all the same
	noDecap bool                          // decap form is another test's
}

// zeros is a source of random numbers that makes frames the same each time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// placed is one IPsec header of a sealed frame.
type placed struct {
	sa                   *sa.SA
	ip, at, payload, end int
	plain                []byte // ESP's plaintext with its trailer
	next                 uint8  // AH's next header
}

// sealed is a frame with the knowledge of what lies where in it.
type sealed struct {
	frame   []byte
	l3      int
	layers  []placed // outermost first
	packets [][]byte // packets[i] is what the first i SAs made
}

func (c *frameCase) seal(t testing.TB) *sealed {
	t.Helper()
	packet := c.packet
	if packet == nil {
		packet = plain4()
	}
	s := &sealed{packets: [][]byte{packet}}
	plains := map[*sa.SA][]byte{}
	sealer, err := outbound.NewSealer(zeros{}, c.sas...)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range c.sas {
		if number, ok := c.numbers[a]; ok {
			sealer.SetNumber(i, number)
		}
		number := sealer.Number(i)
		if packet, err = sealer.Stack(i).Seal(nil, packet); err != nil {
			t.Fatal(err)
		}
		packet = forge.Reseal(packet, a, number, func(b []byte) []byte {
			if m := c.mangle[a]; m != nil {
				b = m(b)
			}
			plains[a] = bytes.Clone(b)
			return b
		})
		s.packets = append(s.packets, packet)
	}
	s.frame = forge.AppendFrame(nil, packet, c.tags...)
	s.l3 = 14 + 4*len(c.tags)
	s.place(c, plains)
	if c.spoil != nil {
		s.frame = c.spoil(s.frame)
	}
	return s
}

// place finds every IPsec header, outermost first, by opening a copy of the
// frame with the plaintexts that the sealer told.
func (s *sealed) place(c *frameCase, plains map[*sa.SA][]byte) {
	model := bytes.Clone(s.frame)
	ip := s.l3
	at := ip + headersLen(model[ip:])
	end := ip + ipLen(model[ip:])
	for _, a := range slices.Backward(c.sas) {
		p := placed{sa: a, ip: ip, at: at, end: end}
		if a.Encap {
			p.at += 8
		}
		if a.Protocol == sa.AH {
			p.payload = p.at + (12+a.Suite.IVLen+a.Suite.ICVLen+7)&^7
			if c.ahLen > 0 {
				p.payload = p.at + c.ahLen
			}
			end, p.next = p.end, model[p.at]
		} else {
			p.plain = plains[a]
			p.payload = p.at + 8 + a.Suite.IVLen
			copy(model[min(p.payload, len(model)):], p.plain)
			end = p.payload + len(p.plain) - 2 - int(p.plain[len(p.plain)-2])
		}
		s.layers = append(s.layers, p)
		at = p.payload
		if a.Mode == sa.Tunnel && a.Bundle == "" && p.payload+20 <= len(model) {
			ip = p.payload
			at = ip + headersLen(model[ip:])
			end = ip + ipLen(model[ip:])
		}
	}
}

// headersLen is the length of the IP header with options and extension headers.
func headersLen(ip []byte) int {
	if ip[0]>>4 == 4 {
		return int(ip[0]&15) * 4
	}
	n, next := 40, ip[6]
	for slices.Contains([]byte{0, 43, 44, 60}, next) {
		length := 8 + int(ip[n+1])*8
		if next == 44 {
			length = 8
		}
		next, n = ip[n], n+length
	}
	return n
}

func ipLen(ip []byte) int {
	if ip[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(ip[2:]))
	}
	return 40 + int(binary.BigEndian.Uint16(ip[4:]))
}

// record is what the contract says of one header with that outcome.
func (p *placed) record(o outcome, kind status.Portion, number uint64) status.Record {
	su := p.sa.Suite
	r := status.Record{
		Portion: kind, Protocol: uint8(p.sa.Protocol), SPI: p.sa.SPI, Number: number,
		State: o.state, Reason: o.reason, Code: o.reason.Code(kind),
		IP: uint16(p.ip), IPsec: uint16(p.at), Payload: uint16(p.payload),
		IVLen: uint8(su.IVLen), ICVLen: uint8(su.ICVLen),
	}
	n := len(p.plain)
	switch {
	case p.sa.Protocol == sa.AH:
		r.PayloadLen, r.NextHeader = uint16(p.end-p.payload), p.next
	case o.state == status.ICVValid:
		r.PadLen, r.NextHeader = p.plain[n-2], p.plain[n-1]
		r.PayloadLen = uint16(n - 2 - int(r.PadLen))
	default:
		r.PayloadLen = uint16(p.end - su.ICVLen - p.payload)
	}
	return r
}

// kinds names the portion of every layer: an AH in one packet with ESP is of
// that one's portion.
func (s *sealed) kind(i int) status.Portion {
	l := s.layers[i]
	if l.sa.Protocol == sa.AH && i+1 < len(s.layers) && s.layers[i+1].ip == l.ip {
		l = s.layers[i+1]
	}
	if l.sa.Mode == sa.Tunnel {
		return status.TunnelPortion
	}
	return status.TransportPortion
}

// expected builds the trailer's records from the outcomes.
func (c *frameCase) expected(s *sealed, sad *pipeline.SAD) []status.Record {
	var all []status.Record
	for i, o := range c.records {
		l := s.layers[i]
		number := uint64(1)
		if n, ok := c.numbers[l.sa]; ok {
			number = n
		}
		kind := s.kind(i)
		if i+1 < len(s.layers) && len(c.records) == i+1 && l.sa.Mode == sa.Transport {
			kind = status.TransportPortion // an AH over ESP that matches no SA
		}
		r := l.record(o, kind, number)
		r.Handle = handle(sad, l.sa)
		if c.fix != nil {
			c.fix(i, &r)
		}
		all = append(all, r)
	}
	return all
}

// opened is the frame with the ESP of the n outermost layers decrypted.
func (s *sealed) opened(n int) []byte {
	b := bytes.Clone(s.frame)
	for _, l := range s.layers[:n] {
		if l.payload < len(b) {
			copy(b[l.payload:], l.plain)
		}
	}
	return b
}

// verified is how many layers, outermost first, the NIC is to open.
func (c *frameCase) verified() int {
	n := 0
	for n < len(c.records) && c.records[n].state == status.ICVValid {
		n++
	}
	return n
}

// nic makes the SAD of a case and offloads its SAs.
func (c *frameCase) nic(t testing.TB) *pipeline.SAD {
	t.Helper()
	profile, err := sa.ProfileByName(c.profile)
	if err != nil {
		t.Fatal(err)
	}
	sad := pipeline.NewSAD(profile, 1)
	offload(t, sad, slices.DeleteFunc(slices.Concat(c.sas, c.also), func(a *sa.SA) bool { return slices.Contains(c.absent, a) })...)
	if c.prepare != nil {
		c.prepare(sad)
	}
	return sad
}

// offload adds SAs, an AH together with the ESP that it names.
func offload(t testing.TB, sad *pipeline.SAD, sas ...*sa.SA) {
	t.Helper()
	for i, a := range sas {
		var err error
		switch next := i + 1; {
		case a.Bundle != "":
		case next < len(sas) && sas[next].Bundle == a.Name:
			_, err = sad.Add(sas[next], a)
		default:
			_, err = sad.Add(a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// handle is that of an SA, or where it is not offloaded, of one with its SPI.
func handle(sad *pipeline.SAD, a *sa.SA) uint32 {
	all := sad.List()
	for _, same := range []func(pipeline.Holding) bool{
		func(h pipeline.Holding) bool { return h.SA == a },
		func(h pipeline.Holding) bool { return h.SPI == a.SPI },
	} {
		if i := slices.IndexFunc(all, same); i >= 0 {
			return all[i].Handle
		}
	}
	return 0
}

var received = time.Unix(1700000000, 42)

// process runs one frame through a fresh pipeline, in a buffer whose spare
// capacity is full of rubbish, and takes the trailer off.
func process(t testing.TB, sad *pipeline.SAD, opt pipeline.Options, frame []byte) ([]byte, status.Trailer) {
	t.Helper()
	p := pipeline.New(sad, opt)
	p.At(received)
	return run(t, p, frame)
}

func run(t testing.TB, p *pipeline.Pipeline, frame []byte) ([]byte, status.Trailer) {
	t.Helper()
	buffer := bytes.Repeat([]byte{0xa5}, len(frame)+status.Tailroom)
	copy(buffer, frame)
	out := p.Process(buffer[:len(frame)])
	if last := cap(out) - 1; &out[:cap(out)][last] != &buffer[:cap(buffer)][cap(buffer)-1] {
		t.Error("the frame left its buffer although there was room")
	}
	body, trailer, err := status.Split(out)
	if err != nil {
		t.Fatal(err)
	}
	return body, trailer
}

// check runs the case in both forms.
func (c *frameCase) check(t *testing.T) {
	t.Helper()
	s := c.seal(t)
	sad := c.nic(t)
	body, trailer := process(t, sad, pipeline.Options{Queue: 3}, s.frame)
	want := status.Trailer{
		Word: c.word, Reason: c.reason, Queue: 3, WireLen: uint32(len(s.frame)), Ordinal: 1,
		Received: received.UnixNano(), N: uint8(len(c.records)),
	}
	copy(want.Records[:], c.expected(s, sad))
	compare(t, trailer, want)
	sameBytes(t, body, padded(s.opened(c.verified())))
	c.checkAuto(t, s, want)
	c.checkPressure(t, s, &want)
	if !c.noDecap {
		c.checkDecap(t, s)
	}
}

// checkPressure runs the case with the table under pressure: contract row 26.
func (c *frameCase) checkPressure(t *testing.T, s *sealed, want *status.Trailer) {
	t.Helper()
	sad := c.nic(t)
	sad.ForcePressure(true)
	_, trailer := process(t, sad, pipeline.Options{Queue: 3}, s.frame)
	if want.N > 0 {
		want.Word |= status.SADeleteReq
		want.Records[0].DeleteSA = true
	}
	compare(t, trailer, *want)
}

func (c *frameCase) checkDecap(t *testing.T, s *sealed) {
	t.Helper()
	sad := c.nic(t)
	body, trailer := process(t, sad, pipeline.Options{Form: status.Decap}, s.frame)
	frame, removed := c.decapped(s)
	want := status.Trailer{
		Word: c.word, Reason: c.reason, WireLen: uint32(len(s.frame)), Ordinal: 1,
		Received: received.UnixNano(), N: uint8(len(c.records)), Removed: uint8(removed),
	}
	if removed > 0 {
		want.Form = status.Decap
	}
	copy(want.Records[:], c.expected(s, sad))
	compare(t, trailer, want)
	sameBytes(t, body, padded(frame))
}

// decapped is the frame without its verified portions, and their number.
func (c *frameCase) decapped(s *sealed) (frame []byte, removed int) {
	n := c.verified()
	frame = s.opened(n)
	if c.inPlace {
		return frame, 0
	}
	for i := 0; i < n; {
		j := i + 1
		for j < len(c.records) && s.layers[j].ip == s.layers[i].ip && s.kind(j) == s.kind(i) && s.layers[i].sa.Protocol == sa.AH {
			j++
		}
		if j > n {
			break // the AH of this portion is good, its ESP is not
		}
		removed++
		packet := s.packets[len(s.packets)-1-j]
		if s.kind(i) == status.TunnelPortion {
			packet = s.opened(n)[s.layers[j-1].payload:]
			if n == j { // what lies inside is delivered as it came, TFC padding cut
				packet = packet[:ipLen(packet)]
			} else {
				packet = s.packets[len(s.packets)-1-j]
			}
		}
		frame = forge.AppendFrame(nil, packet, c.tags...)
		i = j
	}
	return frame, removed
}

func padded(frame []byte) []byte {
	for len(frame) < status.MinFrame {
		frame = append(frame, 0)
	}
	return frame
}

func sameBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("delivered %d bytes, want %d\n% x\n% x", len(got), len(want), got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("byte %d of %d is %#02x, want %#02x", i, len(got), got[i], want[i])
			return
		}
	}
}

func compare(t *testing.T, got, want status.Trailer) {
	t.Helper()
	for i := range want.Records {
		if got.Records[i] != want.Records[i] {
			t.Errorf("record %d:\n got %+v\nwant %+v", i, got.Records[i], want.Records[i])
		}
	}
	got.Records, want.Records = [4]status.Record{}, [4]status.Record{}
	if got != want {
		show := func(x status.Trailer) string {
			return fmt.Sprintf("%s %s, %s, %d removed, %d records, queue %d, frame %d of %d bytes at %d",
				x.Word, x.Reason.String(), x.Form, x.Removed, x.N, x.Queue, x.Ordinal, x.WireLen, x.Received)
		}
		t.Errorf("trailer:\n got %s\nwant %s", show(got), show(want))
	}
}

func runAll(t *testing.T, cases []frameCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t) })
	}
}

// flipLast falsifies the last byte: ESP's ICV, or payload that AH covers.
func flipLast(b []byte) []byte {
	b[len(b)-1] ^= 1
	return b
}

// flipInside falsifies the last byte of an ESP's payload.
func flipInside(plain []byte) []byte {
	plain[len(plain)-3-int(plain[len(plain)-2])] ^= 1
	return plain
}
