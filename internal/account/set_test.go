package account

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func newSet(pages int) *set { return &set{budget: &pages} }

// A set and what is outside of another one, against a map.
func TestSetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sets [2]*set
		var model [2]map[uint64]bool
		numbers := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.SampledFrom([]uint64{0, 1, 63, 64, 1023, 1024, 1 << 20}).Draw(t, "at") + rapid.Uint64Range(0, 70).Draw(t, "further")
		})
		for i := range sets {
			sets[i], model[i] = newSet(1000), map[uint64]bool{}
			for _, n := range rapid.SliceOfN(numbers, 0, 40).Draw(t, "numbers") {
				if got := sets[i].add(n); got == model[i][n] {
					t.Fatalf("add %d: new %t", n, got)
				}
				model[i][n] = true
			}
		}
		low := numbers.Draw(t, "low")
		high := low + numbers.Draw(t, "high")
		want := uint64(0)
		for n := range model[0] {
			if n >= low && n <= high && !model[1][n] {
				want++
			}
		}
		if got := sets[0].outside(sets[1], low, high); got != want {
			t.Fatalf("%d outside from %d to %d, want %d", got, low, high, want)
		}
	})
}

// Sets of no number and of one.
func TestSmallSets(t *testing.T) {
	one, other, none := newSet(0), newSet(0), newSet(0)
	one.add(0)
	other.add(0)
	if one.outside(none, 0, 10) != 1 || one.outside(other, 0, 10) != 0 || none.outside(one, 0, 10) != 0 {
		t.Errorf("%d, %d, %d", one.outside(none, 0, 10), one.outside(other, 0, 10), none.outside(one, 0, 10))
	}
}

// The first run of consecutive numbers takes no page, wherever it begins.
func TestRunIsFree(t *testing.T) {
	for _, first := range []uint64{0, 1, 1000, math.MaxUint64 - 3} {
		s := newSet(0)
		for i := range uint64(4) {
			s.add(first + i)
		}
		if s.n != 4 || len(s.pages) > 0 || !s.exact() {
			t.Errorf("from %d: %+v", first, s)
		}
	}
}

// 0 does not come after the last number of all.
func TestSetEnds(t *testing.T) {
	s := newSet(1)
	if !s.add(math.MaxUint64) || !s.add(0) || s.add(0) || s.add(math.MaxUint64) || s.n != 2 {
		t.Errorf("%+v", s)
	}
}

// Without room for another page the lower half of the pages makes room, if there are two.
func TestSetForgets(t *testing.T) {
	s := newSet(2)
	for i := range uint64(4) { // the first is the run
		s.add(i * 2 * pageSize)
	}
	if s.blind || s.forgotten != 4*pageSize || len(s.pages) != 2 || s.exact() || s.n != 4 || s.add(2*pageSize) || s.add(6*pageSize) {
		t.Errorf("%+v", s)
	}
	s = newSet(1)
	for i := range uint64(3) {
		s.add(i * 2 * pageSize)
	}
	if !s.blind || s.forgotten != 0 || len(s.pages) != 1 || s.n != 3 {
		t.Errorf("one page: %+v", s)
	}
	s.free()
	if s.n != 0 || s.budget != nil {
		t.Errorf("freed: %+v", s)
	}
}
