package seal

import (
	"bytes"
	"testing"

	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// mangled seals a packet wrongly and opens it; the ICV must be good whatever
// the reason then is.
func mangled(t *testing.T, m Mangle, packet []byte, a *sa.SA) (payload []byte, next uint8, r status.Reason) {
	t.Helper()
	s, err := New(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	s.SetMangle(0, m)
	sealed, err := s.Seal(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.ParseIP(sealed, 0, len(sealed), sealed[0]>>4)
	if err != nil {
		t.Fatal(err)
	}
	at, n, next, r := verify(t, sealed, p.Header, &p, 1, a)
	return sealed[at : at+n], next, r
}

func TestMangleESP(t *testing.T) {
	const sizes = 33 // of payload, for every pad length
	zeros := make([]byte, 32)
	for _, suite := range []string{"null-sha256", "aes256-sha1", "3des-md5", "aes128ctr-sha384", "aes128gcm8", "aes128ccm12", "chacha20poly1305", "aes128gmac"} {
		a := newSA(1, sa.ESP, sa.Tunnel, suite, gateways[4])
		for n := range sizes {
			packet := udp(4, n)
			for _, c := range []struct {
				name   string
				mangle Mangle
				want   status.Reason
				next   uint8
				inner  []byte
			}{
				{"nothing", nil, status.Verified, 4, packet},
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
	a := newSA(1, sa.ESP, sa.Transport, "aes128gcm16", [2]string{})
	a.PadCheck = false
	packet := udp(6, 30)
	if payload, next, r := mangled(t, ZeroPad, packet, a); r != status.Verified || next != wire.ProtoUDP || !bytes.Equal(payload, packet[40:]) {
		t.Errorf("%s, next header %d, payload %x", r, next, payload)
	}
}

func TestMangleAH(t *testing.T) {
	a := newSA(1, sa.AH, sa.Tunnel, "aes128gmac", gateways[6])
	next := func(b []byte) []byte { b[0] = 59; return b[:len(b)-3] }
	packet := udp(4, 9)
	payload, n, r := mangled(t, next, packet, a)
	if r != status.Verified || n != 59 || !bytes.Equal(payload, packet[:len(packet)-3]) {
		t.Errorf("%s, next header %d, payload %x", r, n, payload)
	}
}
