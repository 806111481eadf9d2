package ah

import (
	"bytes"
	"encoding/hex"
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

// An AH is next header, length in words less two, reserved, SPI, number, then the ICV
// field up to a multiple of 8 bytes, which with GMAC begins with the IV (RFC 4302
// section 2, RFC 4543 section 5.4).
func TestAppend(t *testing.T) {
	for name, want := range map[string]string{
		"sha1":       "1104000012345678000000070000000000000000" + "00000000",
		"sha256":     "110600001234567800000007" + "00000000000000000000000000000000" + "00000000",
		"aes128gmac": "110800001234567800000007" + "0000000500000007" + "00000000000000000000000000000000" + "00000000",
	} {
		s := testSA(t, name, true)
		s.SPI = 0x12345678
		out, err := NewOutbound(s)
		if err != nil {
			t.Fatal(err)
		}
		got := out.Append([]byte("x"), wire.ProtoUDP, 5<<32|7)
		if hex.EncodeToString(got[1:]) != want || out.Len() != len(want)/2 || Len(got[1:]) != len(want)/2 {
			t.Errorf("%s: %x, length %d, want %s", name, got[1:], out.Len(), want)
		}
	}
}

// The shortest options have a type and a length of 2; a type alone, or a length that
// does not cover both, is none (RFC 791 section 3.1, RFC 8200 section 4.2).
func TestShortestOptions(t *testing.T) {
	header := make([]byte, 20)
	for want, all := range map[bool][][]byte{
		true:  {{1, 1, 130, 2}, {1, 1, 99, 2}, {99, 2, 1, 0}, {0, 99, 99, 99}},
		false: {{1, 1, 1, 99}, {99, 1, 1, 1}, {99, 0, 1, 1}, {1, 1, 99, 3}},
	} {
		for _, options := range all {
			header[0] = 0x46
			if got := zeroIPv4(append(bytes.Clone(header), options...)); got != want {
				t.Errorf("IPv4 options %v: %v", options, got)
			}
		}
	}
	for want, all := range map[bool][][]byte{
		true:  {{5, 0}, {0, 5, 0}, {0x3e, 0}, {5, 1, 9}, {0, 0}},
		false: {{5}, {5, 1}, {5, 0, 5}},
	} {
		for _, options := range all {
			if got := zeroOptions(bytes.Clone(options)); got != want {
				t.Errorf("IPv6 options %v: %v", options, got)
			}
		}
	}
}
