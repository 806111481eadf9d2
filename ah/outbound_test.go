package ah

import (
	"errors"
	"testing"

	"tapsec/sa"
	"tapsec/wire"
)

// Options come from whoever made the packet: they must not panic the sealer.
func TestSignRefusesOptionsThatDoNotParse(t *testing.T) {
	suite, err := sa.ParseSuite(sa.AH, "sha256")
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewOutbound(&sa.SA{SPI: 1, Protocol: sa.AH, Suite: suite, IntegrityKey: sa.NewKey(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 24)
	packet[0], packet[9] = 0x46, wire.ProtoAH
	copy(packet[20:], []byte{7, 9, 4, 0}) // record route, longer than the header
	packet = out.Append(packet, wire.ProtoUDP, 1)
	p := wire.Packet{Version: 4, Proto: wire.ProtoAH, Header: 24, End: len(packet)}
	if err := out.Sign(packet, &p, 1); !errors.Is(err, ErrOptions) {
		t.Errorf("got %v, want %v", err, ErrOptions)
	}
	packet[21] = 4
	if err := out.Sign(packet, &p, 1); err != nil {
		t.Errorf("with options that do parse: %v", err)
	}
}
