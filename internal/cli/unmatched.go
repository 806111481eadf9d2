package cli

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// unmatched is an IPsec header for which the NIC held no SA. No record tells of
// it, so it is looked up in the frame, for people who wonder which SA is missing.
type unmatched struct {
	Protocol string     `json:"protocol"`
	SPI      string     `json:"spi"`
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
}

// String gives protocol, SPI and addresses.
func (u unmatched) String() string {
	return fmt.Sprintf("%s SPI %s from %s to %s", u.Protocol, u.SPI, u.Src, u.Dst)
}

// findUnmatched returns the header that the trailer's reason is about; nil where
// the reason is another than that no SA fits.
func findUnmatched(frame []byte, t *status.Trailer) *unmatched {
	switch t.Reason {
	case status.NoSA, status.AddressMismatch, status.EncapMismatch, status.SADeleted, status.UDPNoSA:
	default:
		return nil
	}
	p, ok := lastPacket(frame, t)
	if !ok {
		return nil
	}
	at, protocol := p.Header, sa.Protocol(p.Proto)
	switch p.Proto {
	case wire.ProtoAH:
		at += 4 // the SPI is AH's second word
	case wire.ProtoUDP:
		at, protocol = at+wire.UDPLen, sa.ESP
	}
	if at+4 > p.Reach {
		return nil
	}
	return &unmatched{protocol.String(), fmt.Sprintf("0x%08x", binary.BigEndian.Uint32(frame[at:])), p.Src, p.Dst}
}

// lastPacket parses the packet at which the NIC stopped: the frame's own, or the
// one inside the tunnel that it opened in place.
func lastPacket(frame []byte, t *status.Trailer) (wire.Packet, bool) {
	if t.N == 0 || t.Form == status.Decap {
		return ownPacket(frame)
	}
	tunnel := &t.Records[t.N-1]
	start, end := int(tunnel.Payload), int(tunnel.Payload)+int(tunnel.PayloadLen)
	if start >= end || end > len(frame) {
		return wire.Packet{}, false
	}
	return parsePacket(frame, start, end, frame[start]>>4)
}

// ownPacket parses the packet behind the frame's Ethernet header.
func ownPacket(frame []byte) (wire.Packet, bool) {
	etherType, start, ok := wire.Ethernet(frame)
	if !ok {
		return wire.Packet{}, false
	}
	version := map[uint16]uint8{wire.EtherIPv4: 4, wire.EtherIPv6: 6}[etherType]
	return parsePacket(frame, start, len(frame), version)
}

func parsePacket(frame []byte, start, end int, version uint8) (wire.Packet, bool) {
	if version != 4 && version != 6 {
		return wire.Packet{}, false
	}
	p, err := wire.ParseIP(frame, start, end, version)
	return p, err == nil
}
