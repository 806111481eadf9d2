package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// Two tunnel ends, and two hosts behind them.
const (
	gateway  = "192.0.2.2"
	source   = "192.0.2.1:7"
	server   = "198.51.100.10:9"
	interior = "10.0.0.1:9"
)

const headSA = `
sas:
  - {name: site, spi: 0xc001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16,
     encryption_key: 0x000102030405060708090a0b0c0d0e0fa1a2a3a4}
`

const moreSAs = headSA + `
  - {name: web, spi: 0xc002, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4}
`

// sasOf reads the SAs of a configuration, by name.
func sasOf(t *testing.T, text string) map[string]*sa.SA {
	t.Helper()
	c, err := configs.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	sas := map[string]*sa.SA{}
	for _, s := range c.SAs {
		sas[s.Name] = s
	}
	return sas
}

func sealer(t *testing.T, sas ...*sa.SA) *outbound.Sealer {
	t.Helper()
	s, err := outbound.NewSealer(nil, sas...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealed(t *testing.T, s *outbound.Sealer, packet []byte) []byte {
	t.Helper()
	out, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// plain is a UDP packet to one of the hosts, whose payload begins with its
// number.
func plain(to string, number uint64, size int) []byte {
	payload := binary.BigEndian.AppendUint64(nil, number)
	for len(payload) < size {
		payload = append(payload, byte(len(payload)))
	}
	return forge.UDP(nil, netip.MustParseAddrPort(source), netip.MustParseAddrPort(to), payload)
}

func framed(packet []byte) []byte { return forge.AppendFrame(nil, packet) }

// spoiled flips a bit in the last byte, which lies in the outermost ICV.
func spoiled(packet []byte) []byte {
	packet[len(packet)-1] ^= 1
	return packet
}

// sample is a frame and what the appliance must say of it.
type sample struct {
	name    string
	frame   []byte
	word    status.Word
	reason  status.Reason
	payload []byte // what lies opened in the frame, if anything
}

// mixer makes samples of all kinds, with ever new numbers.
type mixer struct {
	t                           *testing.T
	site, web, nested, stranger *outbound.Sealer
	number                      uint64
}

func newMixer(t *testing.T) *mixer {
	t.Helper()
	sas := sasOf(t, moreSAs)
	unknown := *sas["site"]
	unknown.SPI = 0xdddd
	return &mixer{t: t, site: sealer(t, sas["site"]), web: sealer(t, sas["web"]),
		nested: sealer(t, sas["web"], sas["site"]), stranger: sealer(t, &unknown)}
}

const kinds = 8

// sample makes one of the kind'th kind.
func (m *mixer) sample(kind, size int) sample {
	m.number++
	tunnelled, direct := plain(interior, m.number, size), plain(server, m.number, size)
	good := func(name string, s *outbound.Sealer, packet []byte, word status.Word) sample {
		return sample{name, framed(sealed(m.t, s, packet)), word, status.Verified, packet[20:]}
	}
	switch kind {
	case 0:
		return good("row 5", m.web, direct, 0x2)
	case 1:
		return good("row 6", m.site, tunnelled, 0x2)
	case 2:
		return good("row 11", m.nested, direct, 0x6)
	case 3:
		return sample{"row 8", framed(spoiled(sealed(m.t, m.web, direct))), 0x00030002, status.ESPICV, nil}
	case 4:
		return sample{"row 10", framed(spoiled(sealed(m.t, m.site, tunnelled))), 0x00050002, status.ESPICV, nil}
	case 5:
		wrong := spoiled(sealed(m.t, m.web, direct))
		return sample{"row 13", framed(sealed(m.t, m.site, wrong)), 0x00030006, status.ESPICV, nil}
	case 6:
		return sample{"row 2", framed(sealed(m.t, m.stranger, tunnelled)), 0, status.NoSA, nil}
	}
	return sample{"row 1", framed(direct), 0, status.NoIPsec, nil}
}

// port is one interface from the kernel's side.
type port struct {
	t *testing.T
	*rig.Socket
}

// listen opens the one of the test's own namespace. What comes merged is received apart.
func listen(t *testing.T, name string) port {
	t.Helper()
	p := port{t, testkit.Listen(t, name)}
	if err := p.Apart(); err != nil {
		t.Fatal(err)
	}
	return p
}

// listenIn is listen in a named namespace.
func listenIn(t *testing.T, namespace, name string) (p port) {
	t.Helper()
	ns, err := netns.Open(namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() (err error) {
		if p.Socket, err = rig.OpenSocket(name); err == nil {
			err = p.Apart()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p.t = t
	t.Cleanup(func() { p.Close() })
	return p
}

func (p port) send(frame []byte) {
	p.t.Helper()
	if err := p.Send(frame); err != nil {
		p.t.Fatal(err)
	}
}

// keepSending sends a frame now and then, until the test ends.
func (p port) keepSending(frame []byte) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for p.t.Context().Err() == nil && p.Send(frame) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	p.t.Cleanup(func() { <-ended })
}

// pour sends frames in the background, never more than window ahead of the
// number that the caller stores as seen.
func (p port) pour(frames [][]byte, window int64) (seen *atomic.Int64) {
	seen = new(atomic.Int64)
	go func() {
		for i, frame := range frames {
			for int64(i) >= seen.Load()+window {
				if p.t.Context().Err() != nil {
					return // the test has failed
				}
				time.Sleep(50 * time.Microsecond)
			}
			if err := p.Send(frame); err != nil && p.t.Context().Err() == nil {
				p.t.Error(err)
				return
			}
		}
	}()
	return seen
}

// ours begins every frame that these tests send; anything else is the kernel's.
var ours = forge.AppendFrame(nil, []byte{0x45})[:12]

// next receives the next frame of ours.
func (p port) next() []byte {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		frame, err := p.Receive(time.Until(deadline))
		if err != nil {
			p.t.Fatal(err)
		}
		if bytes.HasPrefix(frame, ours) {
			return frame
		}
	}
}

// silent tells that no frame of ours is to come.
func (p port) silent(for_ time.Duration) {
	p.t.Helper()
	for deadline := time.Now().Add(for_); ; {
		frame, err := p.Receive(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil || bytes.HasPrefix(frame, ours) {
			p.t.Fatalf("a frame too many: %x (%v)", frame, err)
		}
	}
}

// delivered receives the next frame of ours with its trailer taken off.
func (p port) delivered() ([]byte, status.Trailer) {
	p.t.Helper()
	body, trailer, err := status.Split(p.next())
	if err != nil {
		p.t.Fatal(err)
	}
	return body, trailer
}

// check receives the next frame and compares it with what was sent.
func (p port) check(s sample) status.Trailer {
	p.t.Helper()
	body, trailer := p.delivered()
	if trailer.Word != s.word || trailer.Reason != s.reason {
		p.t.Fatalf("%s: got %s (%s), want %s (%s)", s.name, trailer.Word, trailer.Reason, s.word, s.reason)
	}
	if int(trailer.WireLen) != len(s.frame) || len(body) != max(len(s.frame), status.MinFrame) {
		p.t.Fatalf("%s: sent %d bytes, %d delivered, wire length %d", s.name, len(s.frame), len(body), trailer.WireLen)
	}
	if s.payload != nil {
		last := trailer.Records[trailer.N-1]
		opened := body[last.Payload:][:last.PayloadLen]
		if !bytes.HasSuffix(opened, s.payload) {
			p.t.Fatalf("%s: opened\n%x, want at its end\n%x", s.name, opened, s.payload)
		}
	} else if s.name != "row 13" && !bytes.Equal(body[:len(s.frame)], s.frame) { // where the tunnel is open
		p.t.Fatalf("%s: bytes changed though nothing was verified", s.name)
	}
	return trailer
}
