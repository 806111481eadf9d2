package outbound

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"tapsec/internal/fragment"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

func TestMain(m *testing.M) { rig.Main(m) }

// Two hosts, and two gateways that tunnels run between, of each IP version.
var (
	hosts    = map[int][2]netip.Addr{4: pair("10.0.0.1", "10.0.0.2"), 6: pair("2001:db8:1::1", "2001:db8:1::2")}
	gateways = map[int][2]netip.Addr{4: pair("192.0.2.1", "192.0.2.2"), 6: pair("2001:db8::1", "2001:db8::2")}
)

func pair(a, b string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(a), netip.MustParseAddr(b)}
}

// newSA makes an SA with keys that depend on its SPI, from the first of two ends
// to the second.
func newSA(name string, spi uint32, p sa.Protocol, mode sa.Mode, suite string, ends [2]netip.Addr) *sa.SA {
	su, err := sa.ParseSuite(p, suite)
	if err != nil {
		panic(err)
	}
	return &sa.SA{
		Name: name, SPI: spi, Protocol: p, Mode: mode, Suite: su, PadCheck: true, Src: ends[0], Dst: ends[1],
		EncryptionKey: sa.NewKey(bytes.Repeat([]byte{byte(spi + spi>>4)}, su.EncryptionKeyLen())),
		IntegrityKey:  sa.NewKey(bytes.Repeat([]byte{byte(spi+spi>>4) + 1}, su.IntegrityKeyLen())),
	}
}

const (
	gcm  = "aes128gcm16"
	cbc  = "aes128-sha256"
	hmac = "sha256"
)

// The SAs that most tests use: between the hosts, and between the gateways.
func web(v int) *sa.SA     { return newSA("web", 0x101, sa.ESP, sa.Transport, gcm, hosts[v]) }
func webAH(v int) *sa.SA   { return newSA("web-ah", 0x102, sa.AH, sa.Transport, hmac, hosts[v]) }
func site(v int) *sa.SA    { return newSA("site", 0x201, sa.ESP, sa.Tunnel, gcm, gateways[v]) }
func siteAH(v int) *sa.SA  { return newSA("site-ah", 0x202, sa.AH, sa.Tunnel, hmac, gateways[v]) }
func siteCBC(v int) *sa.SA { return newSA("site-cbc", 0x203, sa.ESP, sa.Tunnel, cbc, gateways[v]) }

// with changes an SA.
func with(a *sa.SA, change func(*sa.SA)) *sa.SA {
	change(a)
	return a
}

func encap(a *sa.SA)     { a.Encap = true }
func behindNAT(a *sa.SA) { a.Encap, a.EncapDst = true, 19765 }
func anywhere(a *sa.SA)  { a.Src, a.Dst = netip.Addr{}, netip.Addr{} }
func esn(a *sa.SA)       { a.ESN, a.SeqHigh = true, 7 }

func over(esp string) func(*sa.SA) { return func(a *sa.SA) { a.Bundle = esp } }

func newSender(t testing.TB, c Config) *Sender {
	t.Helper()
	if c.MTU == 0 {
		c.MTU = 1500
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// udp is a frame with n bytes of UDP payload between the hosts.
func udp(v, n int, tags ...uint32) []byte {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i)
	}
	return forge.AppendFrame(nil, forge.UDP(nil, netip.AddrPortFrom(hosts[v][0], 7), netip.AddrPortFrom(hosts[v][1], 4242), payload), tags...)
}

// sized is such a frame whose packet is n bytes long.
func sized(v, n int) []byte { return udp(v, n-map[int]int{4: 28, 6: 48}[v]) }

// edited changes the IP packet of a frame and puts its checksum right.
func edited(frame []byte, change func(ip []byte)) []byte {
	ip := frame[14:]
	change(ip)
	if ip[0]>>4 == 4 {
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], wire.Checksum(0, ip[:int(ip[0]&15)*4]))
	}
	return frame
}

func df(ip []byte) { be.PutUint16(ip[6:], dontFragment) }

// send hands a batch to a Sender and returns copies of what it sends.
func send(s *Sender, frames ...[]byte) (sent [][]byte) {
	for _, f := range s.Batch(frames) {
		sent = append(sent, bytes.Clone(f))
	}
	return sent
}

// bundles groups SAs as a receiver wants them: an AH and the ESP of its bundle.
func bundles(sas []*sa.SA) (all [][]*sa.SA) {
	for i, a := range sas {
		switch {
		case a.Bundle != "":
			all[len(all)-1] = []*sa.SA{a, sas[i-1]}
		default:
			all = append(all, []*sa.SA{a})
		}
	}
	return all
}

// receiver is a NIC that takes all headers off again.
func receiver(t testing.TB, sas ...*sa.SA) *pipeline.Pipeline {
	t.Helper()
	full, _ := sa.ProfileByName("full")
	sad := pipeline.NewSAD(full, 1)
	for _, b := range bundles(sas) {
		if _, err := sad.Add(b...); err != nil {
			t.Fatal(err)
		}
	}
	return pipeline.New(sad, pipeline.Options{Form: status.Decap})
}

// open has a receiver open a frame, all of whose portions must be good.
func open(t testing.TB, p *pipeline.Pipeline, frame []byte, portions int) ([]byte, status.Trailer) {
	t.Helper()
	body, trailer, err := status.Split(p.Process(bytes.Clone(frame)))
	want := map[int]status.Word{0: 0, 1: 2, 2: 6}[portions]
	if err != nil || trailer.Word != want {
		t.Fatalf("received with %s (%s), %v, want %s", trailer.Word, trailer.Reason, err, want)
	}
	return body, trailer
}

// carried cuts Ethernet padding off.
func carried(t testing.TB, frame []byte) []byte {
	t.Helper()
	_, l3, ok := wire.Ethernet(frame)
	if !ok {
		t.Fatalf("no Ethernet frame: %x", frame)
	}
	p, ok := wire.Addresses(frame, l3)
	if !ok || p.Short {
		t.Fatalf("no IP packet: %x", frame)
	}
	return frame[:p.End]
}

// counts describes everything that was counted.
func counts(s *Sender) string {
	text := ""
	for r, n := range s.Counts() {
		if n > 0 {
			text += fmt.Sprintf(" %s:%d", Reason(r), n)
		}
	}
	return text
}

// reassembly is a stage that puts fragments together.
type reassembly struct{ *fragment.Buffer }

func (r reassembly) Batch(frames [][]byte) [][]byte {
	r.Release()
	whole := make([][]byte, 0, len(frames))
	for _, f := range frames {
		_, l3, _ := wire.Ethernet(f)
		if p, ok := wire.Addresses(f, l3); ok && p.Fragment {
			if f, _ = r.Add(f, p, 0, 0); f == nil {
				continue
			}
		}
		whole = append(whole, f)
	}
	return whole
}
