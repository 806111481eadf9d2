package diagnosis

import (
	"tapsec/status"
	"tapsec/wire"
)

// insideOf parses the packet that an opened tunnel carries.
func insideOf(frame []byte, tunnel *status.Record) (wire.Packet, bool) {
	start, end := int(tunnel.Payload), int(tunnel.Payload)+int(tunnel.PayloadLen)
	if start >= end || end > len(frame) {
		return wire.Packet{}, false
	}
	return parsePacket(frame, start, end, frame[start]>>4)
}

func parsePacket(frame []byte, start, end int, version uint8) (wire.Packet, bool) {
	if version != 4 && version != 6 {
		return wire.Packet{}, false
	}
	p, err := wire.ParseIP(frame, start, end, version)
	return p, err == nil
}
