package tap

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// A frame that its slot is too small for comes in its turn, by the socket's own queue; what is longer than
// the room is lost and counted, and nothing comes in its place.
func TestPacketRingTakesWhatSlotsAreTooSmallFor(t *testing.T) {
	near, tap, small, _ := attached(t, Options{Engine: Ring}, 100, 0)
	small.Stop()
	if _, err := small.Receive(); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	l := link(t, Options{Engine: Ring}, near, tap, 1400, 64)
	far := testkit.Listen(t, "far")
	var want [][]byte
	for i := range 3 * Batch {
		f := frame(i, []int{60, 1400, 110, 1500, 1300}[i%5])
		if i%4 == 2 && len(f) < 1400 {
			f = tagged(f, "\x88\xa8\x00\x05")
		}
		if err := far.Send(f); err != nil {
			t.Fatal(err)
		}
		if len(f) <= 1400 {
			want = append(want, f)
		}
	}
	for len(want) > 0 {
		frames, err := l.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if !bytes.Equal(f, want[0]) || cap(f)-len(f) < 64 {
				t.Fatalf("%d bytes with %d behind them, want %d: %x", len(f), cap(f)-len(f), len(want[0]), f[:20])
			}
			want = want[1:]
		}
	}
	if got := l.Tally(); got.Oversize != (3*Batch+1)/5 {
		t.Errorf("%+v", got)
	}
}

// A socket whose buffer is full has no room for what is longer than a slot: one of the kernel's drops, and the
// next frame is not taken for it.
func TestPacketRingLosesLongFramesAlone(t *testing.T) {
	near, tap, small, _ := attached(t, Options{Engine: Ring}, 100, 0)
	small.Stop()
	if _, err := small.Receive(); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	l := link(t, Options{Engine: Ring}, near, tap, 1514, 64)
	if err := control(near.queues[0], func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 10000) }); err != nil {
		t.Fatal(err)
	}
	far := testkit.Listen(t, "far")
	const count = 240
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if err := far.Send(frame(i, 60+i%2*1400)); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, 200)
	last := -1
	for last < count-2 {
		frames, err := l.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if last < 0 {
			send(200, count) // for which there is room again, behind those for which there was none
		}
		for _, f := range frames {
			i := int(f[15])
			if !bytes.Equal(f, frame(i, 60+i%2*1400)) || i <= last || i%2 == 1 && i > last+1 || i%2 == 0 && i > last+2 {
				t.Fatalf("after %d: %x", last, f[:20])
			}
			last = i
		}
	}
	got := l.Tally()
	if drops, err := near.Drops(); err != nil || drops.Tx == 0 || got.In+drops.Tx < count-1 || got.Oversize != 0 {
		t.Errorf("%+v, %+v, %v", got, drops, err)
	}
}

// What a full ring loses the kernel counts, and what it holds waits for the next worker.
func TestPacketRingIsFull(t *testing.T) {
	near, tap, first, _ := attached(t, Options{Engine: Ring}, 1514, 64)
	far := testkit.Listen(t, "far")
	slots := near.mapped[0].(*packetRing).count
	count := slots + 1000
	for i := range count {
		if err := far.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the kernel tells only once
		if drops, err := near.Drops(); err != nil || drops.Tx != 1000 {
			t.Fatalf("%+v, %v", drops, err)
		}
	}
	next := 0
	for l := first; next < slots; l = link(t, Options{Engine: Ring}, near, tap, 1514, 64) {
		for range 50 {
			if next == slots {
				break
			}
			frames, err := l.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				if !bytes.Equal(f, frame(next, 60)) {
					t.Fatalf("frame %d: %x", next, f[:20])
				}
				next++
			}
		}
		l.Stop()
		if _, err := l.Receive(); !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
	}
}

// An interface that goes down and comes up, or whose other end does, is the same afterwards.
func TestAttachedFlaps(t *testing.T) { attachments(t, testAttachedFlaps) }

func testAttachedFlaps(t *testing.T, how Options) {
	_, _, in, out := attached(t, how, 1514, 64)
	for turn := range 5 {
		for _, name := range []string{"near", "far"} {
			if err := errors.Join(rig.Down(name), netns.Up(name), netns.Ready("near", "far")); err != nil {
				t.Fatal(err)
			}
		}
		far := testkit.Listen(t, "far")
		for i := range 3 {
			if err := errors.Join(far.Send(frame(turn, 60+i)), out.Send([][]byte{frame(turn, 80+i)})); err != nil {
				t.Fatal(err)
			}
			if got, err := far.Receive(time.Minute); err != nil || !bytes.Equal(got, frame(turn, 80+i)) {
				t.Fatalf("turn %d: %x, %v", turn, got, err)
			}
		}
		for got := 0; got < 3; {
			frames, err := in.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				if !bytes.Equal(f, frame(turn, 60+got)) {
					t.Fatalf("turn %d: %x", turn, f)
				}
				got++
			}
		}
	}
}

// A deletion under load ends the worker, and what it had received is counted.
func TestAttachedDeletedUnderLoad(t *testing.T) { attachments(t, testAttachedDeletedUnderLoad) }

func testAttachedDeletedUnderLoad(t *testing.T, how Options) {
	near, _, _, out := attached(t, how, 1514, 64)
	out.end() // whose place it takes
	back := link(t, how, near, near, 1514, 64)
	far := testkit.Listen(t, "far")
	ended, sent := make(chan error, 1), make(chan error, 1)
	go func() {
		for {
			frames, err := back.Receive()
			if err == nil {
				err = back.Send(frames)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	go func() {
		for {
			if err := far.Send(frame(1, 60)); err != nil {
				sent <- err
				return
			}
		}
	}()
	for back.Tally().Out < 1000 {
		time.Sleep(time.Millisecond)
	}
	if err := netns.Delete("near"); err != nil {
		t.Fatal(err)
	}
	if err := within(t, func() error { <-sent; return <-ended }); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "near") {
		t.Error(err)
	}
	if got := back.Tally(); got.In != got.Out+got.HostDown+got.TooLong+got.Refused || got.Kept != 0 {
		t.Errorf("%+v", got)
	}
}
