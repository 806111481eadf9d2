//go:build ipsecmb

package esp

import (
	"bytes"
	"testing"
	"unsafe"
)

// No key stays in the memory of a burst.
func TestKeysLeaveTheBurst(t *testing.T) {
	in, scratch := inbound(t, testSA(t, "aes128-sha256")), new(Scratch)
	for range Burst {
		in.Enter(0, make([]byte, 128+HeaderLen+16+16), 1, scratch)
	}
	scratch.Together()
	if scratch.burst.entered[Burst-1].job == nil {
		t.Fatal("nothing was opened together")
	}
	key := in.aead(0).(*composite).lane.key
	memory := unsafe.Slice((*byte)(unsafe.Pointer(scratch.burst.memory)), unsafe.Sizeof(*scratch.burst.memory))
	for _, secret := range [][]byte{bytesOf(&key.rounds)[:16], bytesOf(&key.inner)[:32], bytesOf(&key.outer)[:32]} {
		if bytes.Contains(memory, secret) {
			t.Errorf("%d bytes of a key are still there", len(secret))
		}
	}
}
