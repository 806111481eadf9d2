package outbound_test

import (
	"bytes"
	"encoding/binary"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// open is the receiver of this test: it takes every SA's header off again and
// expects the number on each.
func open(t fataler, packet []byte, number uint64, sas ...*sa.SA) []byte {
	t.Helper()
	packet = bytes.Clone(packet)
	for i := len(sas) - 1; i >= 0; i-- {
		packet = openOne(t, packet, number, sas[i])
	}
	return packet
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

var scratch struct {
	esp esp.Scratch
	ah  ah.Scratch
}

func openOne(t fataler, packet []byte, number uint64, a *sa.SA) []byte {
	t.Helper()
	p, err := wire.ParseIP(packet, 0, len(packet), packet[0]>>4)
	if err != nil || p.End != len(packet) {
		t.Fatalf("%s: headers %+v, %v, of %d bytes", a, p, err, len(packet))
	}
	if a.Dst.IsValid() && p.Dst != a.Dst {
		t.Fatalf("%s: sent to %s", a, p.Dst)
	}
	at := p.Header
	if a.Encap {
		src, dst, n, _ := wire.UDP(packet[at:])
		if p.Proto != wire.ProtoUDP || src != 4500 || dst != 4500 || n != p.End-at {
			t.Fatalf("%s: UDP from %d to %d, %d of %d bytes", a, src, dst, n, p.End-at)
		}
		at += wire.UDPLen
	} else if p.Proto != uint8(a.Protocol) {
		t.Fatalf("%s: protocol %d", a, p.Proto)
	}
	payload, n, next, reason := verify(t, packet, at, &p, number, a)
	if reason != status.Verified {
		t.Fatalf("%s: %s", a, reason)
	}
	if a.Mode == sa.Transport || a.Bundle != "" {
		packet = wire.StripTransport(packet, &p, payload, n, next)
		return packet
	}
	inner := packet[payload : payload+n]
	if want := map[byte]uint8{4: 4, 6: 41}[inner[0]>>4]; next != want {
		t.Fatalf("%s: next header %d in front of version %d", a, next, inner[0]>>4)
	}
	return inner
}

// verify opens the IPsec header at packet[at:] and says where its payload is.
func verify(t fataler, packet []byte, at int, p *wire.Packet, number uint64, a *sa.SA) (payload, n int, next uint8, r status.Reason) {
	t.Helper()
	if a.Protocol == sa.AH {
		in, err := ah.NewInbound(a, 1)
		if err != nil {
			t.Fatalf("%v", err)
		}
		payload = at + ah.Len(packet[at:])
		return payload, p.End - payload, packet[at], in.Verify(0, packet, p, number, &scratch.ah)
	}
	in, err := esp.NewInbound(a, 1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	o, r := in.Open(0, packet[at:p.End], number, &scratch.esp)
	return at + esp.HeaderLen + a.Suite.IVLen, o.Len, o.NextHeader, r
}

// headers are those of a packet that is whole.
func headers(t fataler, packet []byte) wire.Packet {
	t.Helper()
	p, err := wire.ParseIP(packet, 0, len(packet), packet[0]>>4)
	if err != nil || p.Short {
		t.Fatalf("no whole packet: %x", packet)
	}
	return p
}

// mended gives a packet the length that it has and, in IPv4, its checksum.
func mended(packet []byte) []byte {
	if packet[0]>>4 == 6 {
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-wire.IPv6Len))
		return packet
	}
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	packet[10], packet[11] = 0, 0
	binary.BigEndian.PutUint16(packet[10:], wire.Checksum(0, packet[:int(packet[0]&15)*4]))
	return packet
}
