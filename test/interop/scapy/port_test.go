package scapy

import (
	"bytes"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// port is one interface from the kernel's side.
type port struct {
	t *testing.T
	*rig.Socket
}

func listen(t *testing.T, name string) port { return port{t, testkit.Listen(t, name)} }

// ours begins every frame of this test; anything else is the kernel's.
var ours = forge.AppendFrame(nil, []byte{0x45})[:12]

// exchange sends a frame and waits for what becomes of it at another port.
func exchange(from, to port, frame []byte) []byte {
	from.t.Helper()
	if err := from.Send(frame); err != nil {
		from.t.Fatal(err)
	}
	for deadline := time.Now().Add(program.Patience); ; {
		got, err := to.Receive(time.Until(deadline))
		if err != nil {
			to.t.Fatal(err)
		}
		if bytes.HasPrefix(got, ours) {
			return got
		}
	}
}
