package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// merging opens a TAP whose stack sends and receives merged packets, and another one.
func merging(t testing.TB, stack, other string) (a, b *Device) {
	t.Helper()
	a, b = openTAP(t, Config{Name: stack, MTU: 1500, Merging: AllMerging &^ Wire}), openTAP(t, Config{Name: other, MTU: 1500})
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

// While merged frames come, the kernel has a few slots, always the same ones; for others it gets more.
func TestFewSlotsForMerged(t *testing.T) {
	stack, other := merging(t, "mf", "mo")
	in := link(t, Options{Engine: Ring}, stack, other, 1522, 64)
	feed, ok := in.Worker.engine.(*ring).ports[0].reader.feed.(*multishot)
	if !ok {
		rig.Missing(t, "needs multishot reads")
	}
	beside := testkit.Listen(t, "mf")
	comes := func(want [][]byte) {
		t.Helper()
		for len(want) > 0 {
			frames, err := in.Receive()
			if err != nil || len(frames) > len(want) || !slices.EqualFunc(frames, want[:len(frames)], bytes.Equal) {
				t.Fatalf("other frames, %v", err)
			}
			want = want[len(frames):]
		}
	}
	mergedOnes := func() {
		t.Helper()
		for range 3 * fewSlots {
			want, _ := mergedKinds["tcp4"].send(t, "mf", 10, 600)
			comes(want)
		}
		if feed.most != fewSlots {
			t.Errorf("after merged frames the kernel is to have %d slots", feed.most)
		}
	}
	mergedOnes()
	if len(feed.spare) < slotCount-fewSlots {
		t.Errorf("merged frames took %d slots", slotCount-len(feed.spare))
	}
	var alone [][]byte
	for i := range 200 {
		alone = append(alone, frame(i, 60))
		if err := beside.Send(alone[i]); err != nil {
			t.Fatal(err)
		}
	}
	comes(alone)
	if feed.most <= 2*fewSlots {
		t.Errorf("for others the kernel is to have %d slots", feed.most)
	}
	mergedOnes()
}

// sealed are frames of ESP in UDP without a checksum, of two SAs one behind the other, and of others before,
// between and behind; and the same as they are once the kernel has cut what was merged.
func sealed(t testing.TB) (frames, cut [][]byte) {
	const size, udp = 700, 14 + 20
	add := func(spi byte, identification, length int) {
		f, _ := inPacket(t, false, "", &layers.UDP{SrcPort: 4500, DstPort: 4500}, append([]byte{0, 0, 1, spi}, make([]byte, length)...))
		identify(f, 14, identification)
		cut = append(cut, bytes.Clone(f))
		clear(f[udp+6 : udp+8])
		frames = append(frames, f)
	}
	alone := func(number int) {
		frames, cut = append(frames, frame(number, 60)), append(cut, frame(number, 60))
	}
	alone(1)
	for i := range 60 {
		add(1, i, size)
	}
	for i := range 30 {
		add(2, 60+i, size)
	}
	alone(2)
	for i := range 10 {
		add(1, 1000+i, size)
	}
	alone(3)
	return frames, cut
}

// Contract, The sending side, 6: ESP in UDP leaves merged for a TAP, which gets it so where its program says that
// it takes that; else the kernel cuts it. Either way each packet comes, in order: to that program as it was sent,
// from the kernel with a checksum in it. Nothing is merged where it is not to be.
func TestSealedPassesMerged(t *testing.T) { engines(t, testSealedPassesMerged) }

func testSealedPassesMerged(t *testing.T, how Options) {
	for _, reads := range []Merging{Wire, 0} {
		for _, sends := range []Merging{Wire, 0} {
			t.Run("from "+sends.String()+" to "+reads.String(), func(t *testing.T) {
				wire, other := openTAP(t, Config{Name: "wm", MTU: 1500, Merging: reads}), openTAP(t, Config{Name: "wo"})
				if reads != wire.Merging() {
					rig.Missing(t, "needs a kernel with USO")
				}
				if err := errors.Join(netns.Up("wm"), netns.Up("wo"), netns.Ready("wm", "wo")); err != nil {
					t.Fatal(err)
				}
				in := link(t, how, wire, other, 1522, 64)
				out := toWire(t, other, "wm", sends)
				frames, cut := sealed(t)
				if sends == 0 || reads == Wire {
					cut = cloned(frames)
				}
				if err := out.Send(frames); err != nil {
					t.Fatal(err)
				}
				expect(t, in, cut)
				packets := len(frames)
				if reads == Wire && sends == Wire {
					packets = 6
				}
				if c, err := netns.Counters("wm"); err != nil || int(c.TxPackets) != packets {
					t.Errorf("%d frames were %d packets, expected %d: %v", len(frames), c.TxPackets, packets, err)
				}
				if n := out.Tally(); int(n.Out) != len(frames) || n.Refused+n.TooLong+n.HostDown != 0 {
					t.Errorf("%+v, of %d frames", n, len(frames))
				}
			})
		}
	}
}

// toWire is a link to an interface that it attaches, by a transmit ring.
func toWire(t *testing.T, from *Device, name string, merges Merging) *single {
	t.Helper()
	to, err := Attach(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	return link(t, Options{Engine: Ring, Merging: merges}, from, to, 1522, 64)
}

func cloned(frames [][]byte) (all [][]byte) {
	for _, f := range frames {
		all = append(all, bytes.Clone(f))
	}
	return all
}

// Behind any interface but a TAP nobody was asked whether they take merged frames, so they get none.
func TestSealedStaysApart(t *testing.T) {
	rig.Require(t)
	remove, err := rig.QuietVeths(1500, "wv")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	far := testkit.Listen(t, rig.FarEnd("wv"))
	out := toWire(t, openTAP(t, Config{Name: "wo"}), "wv", Wire)
	frames, _ := sealed(t)
	want := cloned(frames)
	if err := out.Send(frames); err != nil {
		t.Fatal(err)
	}
	for i, f := range want {
		if got, err := far.Receive(patience); err != nil || !bytes.Equal(got, f) {
			t.Fatalf("frame %d: %d bytes, %v", i, len(got), err)
		}
	}
}

// Where merged frames are refused, for whatever reason, their packets go one by one, and so do all later ones.
func TestSealedIsRefusedMerged(t *testing.T) {
	for _, c := range []struct {
		why    string
		refuse func(t *testing.T, out *single)
	}{
		{"by a kernel before 6.2", func(t *testing.T, out *single) {
			r := out.Worker.engine.(*ring)
			r.sink = withoutUDP{r.sink}
		}},
		{"by an egress filter", func(t *testing.T, _ *single) {
			rules := exec.Command("nft", "-f", "-")
			rules.Stdin = strings.NewReader("table netdev t {\n chain e {\n type filter hook egress device wr priority 0\n meta length > 2000 drop\n }\n}\n")
			if what, err := rules.CombinedOutput(); err != nil {
				rig.Missing(t, "needs nft and its egress hook: "+string(what))
			}
			t.Cleanup(func() { exec.Command("nft", "delete", "table", "netdev", "t").Run() })
		}},
	} {
		t.Run(c.why, func(t *testing.T) {
			wire, other := openTAP(t, Config{Name: "wr", MTU: 1500, Merging: Wire}), openTAP(t, Config{Name: "wo"})
			if wire.Merging() != Wire {
				rig.Missing(t, "needs a kernel with USO")
			}
			if err := errors.Join(netns.Up("wr"), netns.Up("wo"), netns.Ready("wr", "wo")); err != nil {
				t.Fatal(err)
			}
			in, out := link(t, Options{Engine: Plain}, wire, other, 1522, 64), toWire(t, other, "wr", Wire)
			c.refuse(t, out)
			frames, _ := sealed(t)
			want := cloned(frames)
			if err := out.Send(frames); err != nil {
				t.Fatal(err)
			}
			expect(t, in, want)
			if n := out.Tally(); int(n.Out) != len(want) || n.Refused+n.TooLong+n.HostDown != 0 {
				t.Errorf("%+v, of %d frames", n, len(want))
			}
		})
	}
}

// withoutUDP answers to merged UDP as a kernel does that does not know it.
type withoutUDP struct{ sink }

func (w withoutUDP) put(fd int, parcels []parcel) (int, error) {
	for i := range parcels {
		if parcels[i].merged() {
			if i == 0 {
				return 0, unix.EINVAL
			}
			parcels = parcels[:i]
			break
		}
	}
	return w.sink.put(fd, parcels)
}

// A merged packet is as long as its longest frame.
func TestSealedIsTooLong(t *testing.T) {
	wire, other := openTAP(t, Config{Name: "wl", MTU: 600, Merging: Wire}), openTAP(t, Config{Name: "wo"})
	if wire.Merging() != Wire {
		rig.Missing(t, "needs a kernel with USO")
	}
	if err := errors.Join(netns.Up("wl"), netns.Up("wo"), netns.Ready("wl", "wo")); err != nil {
		t.Fatal(err)
	}
	in, out := link(t, Options{Engine: Plain}, wire, other, 1522, 64), toWire(t, other, "wl", Wire)
	frames, _ := sealed(t)
	if err := out.Send(frames); err != nil {
		t.Fatal(err)
	}
	expect(t, in, [][]byte{frame(1, 60), frame(2, 60), frame(3, 60)})
	if n := out.Tally(); n.Out != 3 || n.TooLong != 100 {
		t.Errorf("%+v", n)
	}
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
