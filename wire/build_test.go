package wire

import "testing"

// A packet is as long as its length field can say, and no longer.
func TestLongestPacket(t *testing.T) {
	for _, c := range []struct{ version, longest int }{{4, 65535}, {6, IPv6Len + 65535}} {
		packet := make([]byte, c.longest+1)
		packet[0] = byte(c.version)<<4 | 5
		if !SetLength(packet[:c.longest]) {
			t.Errorf("IPv%d: not %d bytes", c.version, c.longest)
		}
		if SetLength(packet) {
			t.Errorf("IPv%d: %d bytes", c.version, c.longest+1)
		}
	}
}
