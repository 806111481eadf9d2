package forge

import (
	"bytes"
	"net/netip"
	"testing"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// newSA makes an SA with keys that only its suite tells apart.
func newSA(p sa.Protocol, mode sa.Mode, suite string, ends [2]string) *sa.SA {
	su, err := sa.ParseSuite(p, suite)
	if err != nil {
		panic(err)
	}
	a := &sa.SA{
		Name: suite, SPI: 256, Protocol: p, Mode: mode, Suite: su, PadCheck: true,
		EncryptionKey: sa.NewKey(make([]byte, su.EncryptionKeyLen())), IntegrityKey: sa.NewKey(make([]byte, su.IntegrityKeyLen())),
	}
	if ends[0] != "" {
		a.Src, a.Dst = netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
	}
	return a
}

// sealed is what the sender makes of a packet under the number 1.
func sealed(t *testing.T, packet []byte, a *sa.SA) []byte {
	t.Helper()
	s, err := outbound.NewSealer(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mangled seals a packet wrongly and opens it; the ICV must be good whatever
// the reason then is.
func mangled(t *testing.T, m Mangle, packet []byte, a *sa.SA) (payload []byte, next uint8, r status.Reason) {
	t.Helper()
	packet = Reseal(sealed(t, packet, a), a, 1, m)
	p := *parse(packet)
	if a.Protocol == sa.AH {
		in, err := ah.NewInbound(a, 1)
		if err != nil {
			t.Fatal(err)
		}
		return packet[p.Header+ah.Len(packet[p.Header:]):], packet[p.Header], in.Verify(0, packet, &p, 1, &ah.Scratch{})
	}
	in, err := esp.NewInbound(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	o, r := in.Open(0, packet[p.Header:], 1, &esp.Scratch{})
	return packet[p.Header+esp.HeaderLen+a.Suite.IVLen:][:o.Len], o.NextHeader, r
}

func same(b []byte) []byte { return b }

// A packet that nothing is changed of is sealed to the same bytes again.
func TestReseal(t *testing.T) {
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			for _, version := range []int{4, 6} {
				a := newSA(p, sa.Tunnel, su.Name, gateways[version])
				a.ESN, a.Encap = true, p == sa.ESP
				packet := sealed(t, udp(4, 30), a)
				if again := Reseal(bytes.Clone(packet), a, 1, same); !bytes.Equal(again, packet) {
					t.Errorf("%s over IPv%d: sealed to\n%x, again to\n%x", su.Name, version, packet, again)
				}
			}
		}
	}
}

func TestMangleESP(t *testing.T) {
	const sizes = 33 // of payload, for every pad length
	zeros := make([]byte, 32)
	for _, suite := range []string{"null-sha256", "aes256-sha1", "3des-md5", "aes128ctr-sha384", "aes128gcm8", "aes128ccm12", "chacha20poly1305", "aes128gmac"} {
		a := newSA(sa.ESP, sa.Tunnel, suite, gateways[4])
		for n := range sizes {
			packet := udp(4, n)
			for _, c := range []struct {
				name   string
				mangle Mangle
				want   status.Reason
				next   uint8
				inner  []byte
			}{
				{"nothing", same, status.Verified, 4, packet},
				{"next header", NextHeader(59), status.Verified, 59, packet},
				{"pad length", PadLength(255), status.PadLength, 0, nil},
				{"zero pad", ZeroPad, status.PadBytes, 0, nil},
				{"TFC", TFC(17), status.Verified, 4, append(bytes.Clone(packet), zeros...)},
				{"other payload", Payload([]byte("no IP")), status.Verified, 4, []byte("no IP")},
				{"no payload", Payload(nil), status.Verified, 4, nil},
			} {
				inner, next, r := mangled(t, c.mangle, packet, a)
				if r != c.want || next != c.next || !bytes.Equal(inner, c.inner) {
					t.Errorf("%s, %d bytes, %s: %s, next header %d, payload %x", suite, n, c.name, r, next, inner)
				}
			}
		}
	}
}

// Without the check of pad bytes only they may be wrong.
func TestZeroPadUnchecked(t *testing.T) {
	a := newSA(sa.ESP, sa.Transport, "aes128gcm16", [2]string{})
	a.PadCheck = false
	packet := udp(6, 30)
	if payload, next, r := mangled(t, ZeroPad, packet, a); r != status.Verified || next != wire.ProtoUDP || !bytes.Equal(payload, packet[40:]) {
		t.Errorf("%s, next header %d, payload %x", r, next, payload)
	}
}

func TestMangleAH(t *testing.T) {
	a := newSA(sa.AH, sa.Tunnel, "aes128gmac", gateways[6])
	next := func(b []byte) []byte { b[0] = 59; return b[:len(b)-3] }
	packet := udp(4, 9)
	payload, n, r := mangled(t, next, packet, a)
	if r != status.Verified || n != 59 || !bytes.Equal(payload, packet[:len(packet)-3]) {
		t.Errorf("%s, next header %d, payload %x", r, n, payload)
	}
}
