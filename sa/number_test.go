package sa

import (
	"math"
	"math/big"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// slowNumber tries every number near t that ends in low and takes the nearest,
// the larger of two that are equally near.
func slowNumber(t uint64, low uint32) uint64 {
	var best, nearest *big.Int
	T := new(big.Int).SetUint64(t)
	for subspace := int64(-1); subspace <= 1; subspace++ {
		n := new(big.Int).Lsh(big.NewInt(int64(t>>32)+subspace), 32)
		n.Add(n, big.NewInt(int64(low)))
		if n.Sign() < 0 || n.BitLen() > 64 {
			continue
		}
		distance := new(big.Int).Abs(new(big.Int).Sub(n, T))
		if nearest == nil || distance.Cmp(nearest) <= 0 {
			best, nearest = n, distance
		}
	}
	return best.Uint64()
}

// drawEdge draws from where mistakes live: the borders of a subspace, its middle, zero
// and the last number of all.
func drawEdge(t *rapid.T, name string) uint64 {
	base := rapid.SampledFrom([]uint64{0, 1 << 31, 1 << 32, 3 << 31, 5 << 32, 1 << 63, math.MaxUint64 &^ 0xffffffff, math.MaxUint64 - 1<<31}).Draw(t, name)
	return base + uint64(rapid.Int64Range(-3, 3).Draw(t, name+" off"))
}

// Contract, ESN; RFC 4303 appendix A2.
func TestNumberAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		T, low := rapid.Uint64().Draw(t, "T"), rapid.Uint32().Draw(t, "low")
		if rapid.Bool().Draw(t, "edges") {
			T, low = drawEdge(t, "T"), uint32(drawEdge(t, "low"))
		}
		if got, want := Number(T, low), slowNumber(T, low); got != want {
			t.Fatalf("Number(%#x, %#x) = %#x, expected %#x", T, low, got, want)
		}
	})
}

func TestNumberCorners(t *testing.T) {
	for _, c := range []struct {
		name string
		t    uint64
		low  uint32
		want uint64
	}{
		{"next", 5<<32 | 7, 8, 5<<32 | 8},
		{"same", 5<<32 | 7, 7, 5<<32 | 7},
		{"wraps ahead", 5<<32 | 0xffffffff, 0, 6 << 32},
		{"late, before the wrap", 6 << 32, 0xffffffff, 5<<32 | 0xffffffff},
		{"a tie goes ahead", 5 << 32, 1 << 31, 5<<32 | 1<<31},
		{"a tie goes ahead over a wrap", 5<<32 | 1<<31, 0, 6 << 32},
		{"one behind the tie", 5 << 32, 1<<31 + 1, 4<<32 | 1<<31 + 1},
		{"never below 0", 5, 0xfffffff0, 0xfffffff0},
		{"0 to the tie", 0, 1 << 31, 1 << 31},
		{"0 past the tie", 0, 1<<31 + 1, 1<<31 + 1},
		{"the last of all", math.MaxUint64 - 1, 0xffffffff, math.MaxUint64},
		{"none past the last", math.MaxUint64, 0, math.MaxUint64 &^ 0xffffffff},
	} {
		if got := Number(c.t, c.low); got != c.want {
			t.Errorf("%s: Number(%#x, %#x) = %#x, expected %#x", c.name, c.t, c.low, got, c.want)
		}
	}
}

// Until a number is authenticated the high half is seq_high itself; with
// seq T is known from the start.
func TestMarkStarts(t *testing.T) {
	for _, c := range []struct {
		name string
		sa   SA
		low  uint32
		want uint64
	}{
		{"no ESN", SA{}, 0xffffffff, 0xffffffff},
		{"new", SA{ESN: true}, 0xffffffff, 0xffffffff},
		{"seq_high alone is not inferred from", SA{ESN: true, SeqHigh: 3}, 0xffffffff, 3<<32 | 0xffffffff},
		{"seq", SA{ESN: true, Seq: 3<<32 | 0xfffffff0}, 1, 4<<32 | 1},
		{"oseq, at a sender's capture", SA{ESN: true, OSeq: 3<<32 | 0xfffffff0}, 1, 4<<32 | 1},
		{"seq and oseq", SA{ESN: true, Seq: 7 << 32, OSeq: 3 << 32}, 1, 7<<32 | 1},
		{"seq without ESN", SA{Seq: 0xfffffff0}, 1, 1},
	} {
		if got := NewMark(&c.sa).Number(c.low); got != c.want {
			t.Errorf("%s: %#x, expected %#x", c.name, got, c.want)
		}
	}
}

// Update replaces seq_high before the first authenticated number and may only
// raise T afterwards. T never falls.
func TestMarkUpdate(t *testing.T) {
	m := NewMark(&SA{ESN: true, SeqHigh: 9})
	m.Update(2)
	if got := m.Number(7); got != 2<<32|7 {
		t.Errorf("before the first number: %#x", got)
	}
	m.Authenticated(2<<32 | 7)
	m.Authenticated(2<<32 | 5)
	for _, step := range []struct {
		high uint32
		want uint64
	}{{1, 2<<32 | 7}, {2, 2<<32 | 7}, {4, 4 << 32}, {3, 4 << 32}} {
		if m.Update(step.high); m.T() != step.want {
			t.Errorf("Update(%d): T = %#x, expected %#x", step.high, m.T(), step.want)
		}
	}
	if got := m.Number(0xffffffff); got != 3<<32|0xffffffff {
		t.Errorf("behind a raised T: %#x", got)
	}
}

func TestMarkWithoutESN(t *testing.T) {
	m := NewMark(&SA{SeqHigh: 1})
	m.Authenticated(1 << 40)
	m.Update(7)
	if got := m.Number(5); got != 5 || m.T() != 0 {
		t.Errorf("number %#x, T %#x", got, m.T())
	}
}

// Whatever the interleaving, T ends at the highest number. Run with -race.
func TestMarkConcurrently(t *testing.T) {
	const workers, each = 4, 5000
	m := NewMark(&SA{ESN: true})
	var all sync.WaitGroup
	for w := range uint64(workers) {
		all.Go(func() {
			last := uint64(0)
			for i := range uint64(each) {
				m.Authenticated(1<<33 | (i*workers + w + 1))
				m.Number(uint32(i))
				if now := m.T(); now < last {
					t.Errorf("T fell from %#x to %#x", last, now)
				} else {
					last = now
				}
			}
		})
	}
	all.Wait()
	if want := uint64(1<<33 | workers*each); m.T() != want {
		t.Errorf("T = %#x, expected %#x", m.T(), want)
	}
}

// A stream that loses packets and wraps is followed without a mistake, while
// no gap is 2^31 or more.
func TestMarkFollows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(1, 1<<62).Draw(t, "start")
		m := NewMark(&SA{ESN: true, Seq: start})
		sent := start
		for _, gap := range slices.Concat([]int32{1}, rapid.SliceOfN(rapid.Int32Range(1, math.MaxInt32), 1, 20).Draw(t, "gaps")) {
			sent += uint64(gap)
			if got := m.Number(uint32(sent)); got != sent {
				t.Fatalf("%#x was taken for %#x", sent, got)
			}
			m.Authenticated(sent)
		}
	})
}
