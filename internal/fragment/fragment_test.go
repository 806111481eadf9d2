package fragment

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/lab/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// Datagrams of all kinds, cut anywhere, mixed, in any order and with fragments
// sent twice: each comes out once, byte for byte as it was before it was cut.
func TestWhateverWasCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newPair(Limits{})
		type sent struct {
			frame []byte
			of    int
		}
		var all []sent
		var want [][]byte
		for i := range rapid.IntRange(1, 6).Draw(t, "datagrams") {
			length := rapid.SampledFrom([]int{9, 16, 40, 1000, 1984, 1985, 4000, 65000}).Draw(t, "length")
			s := drawDatagram(t, i, length)
			want = append(want, s.whole())
			for _, f := range s.split(t) {
				all = append(all, sent{f, i})
			}
		}
		for i := range all {
			if rapid.IntRange(0, 9).Draw(t, "twice") == 0 {
				all = append(all, sent{bytes.Clone(all[i].frame), all[i].of})
			}
		}
		done := make([]bool, len(want))
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Perm(len(all))
		for _, at := range order {
			s := all[at]
			if done[s.of] {
				continue
			}
			whole, r := x.add(t, s.frame, 0, 1)
			if r == Whole {
				if !bytes.Equal(whole, want[s.of]) {
					t.Fatalf("datagram %d:\n got % x\nwant % x", s.of, whole, want[s.of])
				}
				done[s.of] = true
			} else if r != Held && r != Duplicate {
				t.Fatalf("datagram %d: %v", s.of, r)
			}
		}
		x.release(t)
		for i := range done {
			if !done[i] {
				t.Fatalf("datagram %d is missing", i)
			}
		}
	})
}

// Fragments that nobody would send, against the model: every result, every byte,
// every count; with little memory and time that may go back.
func TestAgainstModel(t *testing.T) {
	met := [NumResults]int{}
	rapid.Check(t, func(t *rapid.T) {
		x := newPair(Limits{
			Bytes:     rapid.SampledFrom([]int{MinBytes, MinBytes + 1, 4 << 20}).Draw(t, "bytes"),
			Datagrams: rapid.SampledFrom([]int{1, 2, 5, 1024}).Draw(t, "limit"),
			Age:       100,
		})
		var specs []*datagramSpec
		for i := range 4 {
			specs = append(specs, drawDatagram(t, i/2, 1<<16+1<<12))
		}
		var frames [][]byte
		now := int64(1000)
		for range rapid.IntRange(1, 100).Draw(t, "fragments") {
			frame := drawFragment(t, specs)
			if len(frames) > 0 && rapid.IntRange(0, 5).Draw(t, "again") == 0 {
				frame = frames[rapid.IntRange(0, len(frames)-1).Draw(t, "which")]
			}
			frames = append(frames, bytes.Clone(frame))
			now += rapid.SampledFrom([]int64{0, 0, 0, 1, 1, 5, 30, 100, -1, -99, -101}).Draw(t, "step")
			_, r := x.add(t, frame, rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "carried"), now)
			met[r]++
			if rapid.IntRange(0, 5).Draw(t, "release") == 0 {
				x.release(t)
			}
		}
		x.release(t)
	})
	t.Logf("fragments by result: %v", met)
}

// drawFragment draws a fragment of one of the datagrams, few of which fit
// together.
func drawFragment(t *rapid.T, specs []*datagramSpec) []byte {
	s := specs[rapid.IntRange(0, len(specs)-1).Draw(t, "of")]
	offset := 8 * rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(247, 249), rapid.IntRange(0, 8191)).Draw(t, "offset")
	length := 8 * rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(246, 249)).Draw(t, "length")
	more := rapid.IntRange(0, 2).Draw(t, "more") > 0
	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		length = max(0, length-rapid.IntRange(1, 8).Draw(t, "less"))
	}
	class := s.class
	if rapid.IntRange(0, 9).Draw(t, "mark") == 0 {
		class ^= rapid.ByteRange(1, 3).Draw(t, "ECN")
	}
	frame := s.fragment(offset, offset+length, more, class)
	if rapid.IntRange(0, 9).Draw(t, "evil") == 0 {
		frame[rapid.IntRange(len(s.link), len(frame)-1).Draw(t, "at")]++
	}
	return frame
}
