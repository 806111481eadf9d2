package bench

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
)

const (
	Standard = 1400          // octets of payload that the ratios speak of
	Headline = "aes128gcm16" // their suite

	distinct = 256 // frames of one traffic, which are sent over and over
	overhead = 200 // octets of headers, pads and ICVs of two portions, at most
)

// The endpoints, and the gateways between which the tunnel runs.
var (
	endpoints = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	gateways  = [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}
)

// The endpoints of their traffic.
var source, sink = netip.AddrPortFrom(endpoints[0], 4000), netip.AddrPortFrom(endpoints[1], 5000)

// suite is one kind of protection: its SAs, innermost first.
type suite struct {
	name string
	sas  []*sa.SA
}

// suites makes what is measured, with fresh keys.
func suites() []suite {
	return []suite{
		newSuite(0x1001),
		{"aes256gcm16", []*sa.SA{newSA(0x1002, sa.ESP, sa.Transport, "aes256gcm16")}},
		{"chacha20poly1305", []*sa.SA{newSA(0x1003, sa.ESP, sa.Transport, "chacha20poly1305")}},
		{"aes128-sha256", []*sa.SA{newSA(0x1004, sa.ESP, sa.Transport, "aes128-sha256")}},
		{"AH sha256", []*sa.SA{newSA(0x1005, sa.AH, sa.Transport, "sha256")}},
		{"tunnel+transport", []*sa.SA{newSA(0x1006, sa.ESP, sa.Transport, Headline), newSA(0x1007, sa.ESP, sa.Tunnel, Headline)}},
	}
}

// newSuite is the headline's suite with a key and an SPI of its own.
func newSuite(spi uint32) suite {
	return suite{Headline, []*sa.SA{newSA(spi, sa.ESP, sa.Transport, Headline)}}
}

func newSA(spi uint32, protocol sa.Protocol, mode sa.Mode, text string) *sa.SA {
	s, err := sa.ParseSuite(protocol, text)
	if err != nil {
		panic("bench: " + err.Error())
	}
	ends := endpoints
	if mode == sa.Tunnel {
		ends = gateways
	}
	return &sa.SA{Name: fmt.Sprintf("bench-%x", spi), SPI: spi, Src: ends[0], Dst: ends[1], Protocol: protocol, Mode: mode,
		Suite: s, PadCheck: true, EncryptionKey: newKey(s.EncryptionKeyLen()), IntegrityKey: newKey(s.IntegrityKeyLen())}
}

func newKey(length int) sa.Key {
	key := make([]byte, length)
	rand.Read(key) // never fails
	return sa.NewKey(key)
}

// traffic is sealed frames of one suite and size, to be sent in turn.
type traffic struct {
	suite  string
	size   int // octets that the innermost IPsec header protects
	word   status.Word
	plain  []byte // those octets
	frames [][]byte
}

// newTraffic seals UDP packets, each with a sequence number of its own from 1.
func newTraffic(s suite, size int) (*traffic, error) {
	const udp = 8
	packet := forge.UDP(nil, source, sink, make([]byte, size-udp))
	sealer, err := outbound.NewSealer(nil, s.sas...)
	if err != nil {
		return nil, err
	}
	t := &traffic{suite: s.name, size: size, word: status.CryptoDone, plain: packet[len(packet)-size:]}
	if len(s.sas) > 1 {
		t.word |= status.NextCryptoDone
	}
	for range distinct {
		sealed, err := sealer.Seal(nil, packet)
		if err != nil {
			return nil, err
		}
		t.frames = append(t.frames, forge.AppendFrame(nil, sealed))
	}
	return t, nil
}

// untouched reports whether frame i came out as it went in.
func (t *traffic) untouched(i int, frame []byte) error {
	if !bytes.Equal(frame, t.frames[i%distinct]) {
		return fmt.Errorf("frame %d: %d octets came out that are not the %d that went in", i, len(frame), len(t.frames[i%distinct]))
	}
	return nil
}

// annotated reports whether frame i came out with the right word, its own sequence number, and its
// payload in clear.
func (t *traffic) annotated(i int, frame []byte) error {
	body, trailer, err := status.Split(frame)
	if err != nil {
		return fmt.Errorf("frame %d: %w", i, err)
	}
	if trailer.Word != t.word || int(trailer.WireLen) != len(t.frames[i%distinct]) || trailer.N == 0 {
		return fmt.Errorf("frame %d: word %s, %d octets from the wire; expected %s and %d", i, trailer.Word, trailer.WireLen, t.word, len(t.frames[i%distinct]))
	}
	r := trailer.Records[trailer.N-1]
	if want := uint64(i%distinct + 1); r.Number != want {
		return fmt.Errorf("frame %d: sequence number %d, expected %d", i, r.Number, want)
	}
	if !bytes.HasPrefix(body[min(int(r.Payload), len(body)):], t.plain) {
		return fmt.Errorf("frame %d: its payload is not the one that was sealed", i)
	}
	return nil
}
