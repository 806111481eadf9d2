package keys_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/keys"
)

// Of the generations of a rekey the newest seals, with its own first number: the one
// that ip lists first.
func TestNewestSeals(t *testing.T) {
	text, err := os.ReadFile("testdata/field/c17-rekey.xfrm")
	if err != nil {
		t.Fatal(err)
	}
	read, err := keys.Read("c17-rekey.xfrm", text)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := outbound.New(outbound.Config{SAs: read.All, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	out := sender.Batch([][]byte{forge.AppendFrame(nil, forge.UDP(nil, at("10.0.0.1:1"), at("10.0.0.2:2"), []byte("x")))})
	const ethernet, ip = 14, 20
	if len(out) != 1 || len(out[0]) < ethernet+ip+8 {
		t.Fatalf("sent %x", out)
	}
	esp := out[0][ethernet+ip:]
	if spi, seq := binary.BigEndian.Uint32(esp), binary.BigEndian.Uint32(esp[4:]); spi != 0xb0009002 || seq != 1 {
		t.Errorf("sealed by SPI %#x with the number %d", spi, seq)
	}
}
