package tap

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// While an interface's queue holds as many frames as there are slots, no slot is written, and the next frame
// waits. Afterwards each frame has come out once, in order. Long slots are so few that the socket's buffer is
// not full first.
func TestTransmitRingWaitsForSlots(t *testing.T) {
	rig.Require(t)
	remove, err := rig.QuietVeths(longSlot, "xt")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	receiveOn(t, rig.FarEnd("xt"), "1")
	d, err := Attach("xt")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := d.newTransmitRing(0, longSlot, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	far := testkit.Listen(t, rig.FarEnd("xt"))
	slow(t, "xt", "rate 8kbit burst 200 limit 1000000")
	const count = 600
	numbered := func(i int) []byte {
		f := frame(0, 60)
		f[20], f[21] = byte(i>>8), byte(i)
		return f
	}
	p := newPacker(d)
	sent := 0
	put := func() (err error) {
		var frames [][]byte
		for i := sent; i < min(sent+Batch, count); i++ {
			frames = append(frames, numbered(i))
		}
		var n int
		inside := control(d.outs[0], func(fd int) error { n, err = r.put(fd, p.pack(frames)); return nil })
		sent += n
		return errors.Join(err, inside)
	}
	for err == nil {
		err = put()
	}
	c, counted := netns.Counters("xt")
	if counted != nil || !errors.Is(err, unix.EAGAIN) || sent < r.count || sent-int(c.TxPackets) > r.count {
		t.Fatalf("%d of %d frames, of which %d have left, in %d slots: %v, %v", sent, count, c.TxPackets, r.count, err, counted)
	}
	slow(t, "xt", "rate 100mbit burst 2000 limit 1000000")
	for deadline := time.Now().Add(patience); sent < count; {
		switch err := put(); {
		case errors.Is(err, unix.EAGAIN) && time.Now().Before(deadline):
			time.Sleep(time.Millisecond)
		case err != nil:
			t.Fatalf("frame %d: %v", sent, err)
		}
	}
	for i := range count {
		if got, err := far.Receive(patience); err != nil || !bytes.Equal(got, numbered(i)) {
			t.Fatalf("frame %d: got %x, %v", i, got, err)
		}
	}
}
