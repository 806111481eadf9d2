package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/lab/testkit"
	"tapsec/internal/netns"
)

// merging opens a TAP whose stack sends and receives merged packets, and another one.
func merging(t testing.TB, stack, other string) (a, b *Device) {
	t.Helper()
	a, b = openTAP(t, Config{Name: stack, MTU: 1500, Merging: AllMerging}), openTAP(t, Config{Name: other, MTU: 1500})
	if err := errors.Join(netns.Up(stack), netns.Up(other), netns.Ready(stack, other)); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// What a stack sends merged comes as the frames that it stands for, as from an attached interface.
func TestStackSendsMerged(t *testing.T) { engines(t, testStackSendsMerged) }

func testStackSendsMerged(t *testing.T, how Options) {
	for name, c := range mergedKinds {
		t.Run(name, func(t *testing.T) {
			stack, other := merging(t, "ms", "mo")
			if !c.tcp && stack.Merging()&USO == 0 {
				rig.Missing(t, "needs a kernel with USO")
			}
			in := link(t, how, stack, other, 1522, 64)
			beside, err := rig.Overhear("ms")
			if err != nil {
				t.Fatal(err)
			}
			defer beside.Close()
			c.test(t, in, "ms", beside)
		})
	}
}

// Contract, The transport, step 9: neighbours of a flow reach the stack as one packet, of which the very same frames can be cut, in order
// with what is before, between and behind them. Nobody merges them where the stack is not to receive so.
func TestStackReceivesMerged(t *testing.T) { engines(t, testStackReceivesMerged) }

func testStackReceivesMerged(t *testing.T, how Options) {
	for name, c := range mergedKinds {
		for _, merges := range []Merging{GRO, TSO, 0} {
			t.Run(name, func(t *testing.T) {
				rig.Require(t)
				stack := openTAP(t, Config{Name: "mr", MTU: 1500, Merging: merges})
				other := openTAP(t, Config{Name: "mo", MTU: 1500})
				if err := errors.Join(netns.Up("mr"), netns.Up("mo"), netns.Ready("mr", "mo")); err != nil {
					t.Fatal(err)
				}
				into := link(t, how, other, stack, 1522, 64)
				kernel, err := Attach("mr")
				if err != nil {
					t.Fatal(err)
				}
				defer kernel.Close()
				out := link(t, Options{Engine: Plain}, kernel, other, 1522, 64)
				beside := testkit.Listen(t, "mr")
				const count = 20
				flow, _ := c.frames(t, count, 600)
				for i := range flow {
					flow[i] = c.bare(flow[i])
				}
				want := [][]byte{frame(1, 60)}
				want = append(append(want, flow...), frame(2, 60))
				want = append(append(want, flow[:3]...), frame(3, 700))
				var sent [][]byte
				for _, f := range want {
					sent = append(sent, bytes.Clone(f))
				}
				if err := into.Send(sent); err != nil {
					t.Fatal(err)
				}
				expect(t, out, want)
				wire := len(want)
				if merges == GRO {
					wire -= count - 1 + 2
				}
				for range wire - 1 {
					if _, err := beside.Receive(time.Minute); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := beside.Receive(time.Minute); err != nil || !bytes.Equal(got, frame(3, 700)) {
					t.Errorf("packet %d is not the last: %d bytes, %v", wire, len(got), err)
				}
				if n := into.Tally(); int(n.Out) != len(want) || n.HostDown+n.Refused+n.TooLong != 0 {
					t.Errorf("%+v, of %d frames", n, len(want))
				}
			})
		}
	}
}

// bare takes the extension header out of an IPv6 packet.
func (k mergedKind) bare(frame []byte) []byte {
	const length, extension = 40, 8
	if !k.v6 {
		return frame
	}
	l3 := 14 + len(k.tags)
	at := l3 + length
	frame[l3+6] = frame[at]
	binary.BigEndian.PutUint16(frame[l3+4:], binary.BigEndian.Uint16(frame[l3+4:])-extension)
	return append(frame[:at:at], frame[at+extension:]...)
}

// A TAP that stays gets what its next program expects: whole frames, whatever the one before took.
func TestMergingEndsWithItsProgram(t *testing.T) {
	rig.Require(t)
	if err := netns.AddTAP("mp", false); err != nil {
		t.Fatal(err)
	}
	defer netns.Delete("mp")
	first := openTAP(t, Config{Name: "mp", Merging: AllMerging})
	if err := errors.Join(netns.Up("mp"), first.Close()); err != nil {
		t.Fatal(err)
	}
	plain, other := openTAP(t, Config{Name: "mp"}), openTAP(t, Config{Name: "mo"})
	if err := errors.Join(netns.Up("mo"), netns.Ready("mp", "mo")); err != nil {
		t.Fatal(err)
	}
	in := link(t, Options{Engine: Plain}, plain, other, 1522, 64)
	want, _ := mergedKinds["tcp4"].send(t, "mp", 10, 600)
	expect(t, in, want)
}

// A frame that is injected has a header in front, where others have.
func TestInjectIntoMerging(t *testing.T) {
	stack, _ := merging(t, "mi", "mo")
	kernel := testkit.Listen(t, "mi")
	if err := stack.Inject(frame(7, 100)); err != nil {
		t.Fatal(err)
	}
	for {
		got, err := kernel.Receive(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, frame(7, 100)) {
			return
		}
	}
}

// The names of what is merged are those that are taken.
func TestMergingText(t *testing.T) {
	for m := range AllMerging + 1 {
		var again Merging
		text, _ := m.MarshalText()
		if err := again.UnmarshalText(text); err != nil || again != m {
			t.Errorf("%d: %s, %d, %v", m, text, again, err)
		}
	}
	var m Merging
	if err := m.UnmarshalText([]byte("all")); err != nil || m != AllMerging {
		t.Error(m, err)
	}
	if err := m.UnmarshalText([]byte("tso,lro")); err == nil || m != AllMerging {
		t.Error(m, err)
	}
}
