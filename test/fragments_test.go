package test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/wire"
)

const noSSH = `
local: [192.0.2.2]
policy:
  - {match: {protocol: 6, dst_ports: 22}, action: discard}
  - {action: bypass}
`

// TestFragmentsHideNothing: a rule that discards TCP to port 22 holds in both
// directions, and for addresses that are not ours, where fragments show the port
// in none of them (contract, The transport, step 7; RFC 7112).
func TestFragmentsHideNothing(t *testing.T) {
	rig.Require(t)
	p := launch(t, write(t, noSSH), "--transport", "stack0")
	p.waitLog("msg=ready")
	outside, stack := listen(t, "wire0"), listen(t, "stack0")
	ways := []struct {
		name     string
		from, to port
	}{{"received", outside, stack}, {"sent", stack, outside}}
	for _, way := range ways {
		for name, hidden := range map[string][][]byte{
			"options alone":    {fragment6(22, 0, 8), fragment6(22, 8, 40)},
			"options and TCP":  {fragment6(22, 0, 32), fragment6(22, 32, 16)},
			"without the rest": {fragment6(22, 8, 40)},
		} {
			for _, frame := range hidden {
				way.from.send(frame)
			}
			way.to.silent(100 * time.Millisecond)
			if t.Failed() {
				t.Fatalf("%s: %s", way.name, name)
			}
		}
		whole := fragment6(80, 0, 32)
		way.from.send(whole)
		if got := way.to.next(); !bytes.HasPrefix(got, whole) {
			t.Errorf("%s: what shows another port became\n%x, want\n%x", way.name, got, whole)
		}
	}
	p.stop()
}

// fragment6 is a frame with n bytes from byte at on of a datagram of 48 bytes:
// destination options, and TCP to a port.
func fragment6(port uint16, at, n int) []byte {
	const more, total = 1, 48
	datagram := make([]byte, total)
	copy(datagram, []byte{wire.ProtoTCP, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40})
	binary.BigEndian.PutUint16(datagram[10:], port)
	datagram[8+12] = 5 << 4
	bits := uint16(at)
	if at+n < total {
		bits |= more
	}
	ip := []byte{0x60, 0, 0, 0, 0, byte(8 + n), wire.ProtoFragment, 64}
	for _, last := range []byte{1, 2} { // from 2001:db8::1 to 2001:db8::2
		ip = append(ip, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last)
	}
	ip = append(ip, wire.ProtoDestOpts, 0, byte(bits>>8), byte(bits), 0, 0, 0, 9)
	return framed(append(ip, datagram[at:at+n]...))
}
