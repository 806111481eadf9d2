package sa

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Readers beside changes find an SA that stays at every moment, and never one
// half of a bundle that does not know the other. Run with -race.
func TestTableConcurrently(t *testing.T) {
	table := NewTable[int](0)
	stays := testEntry(0x100)
	if err := table.Add(stays); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if m := table.Lookup(0x100, testAddrs[1], testAddrs[2], false); m.ESP == nil || m.ESP.Mark != stays.Mark {
					t.Error("an SA that was never deleted was not found")
					return
				}
				if m := table.Lookup(0x900, testAddrs[1], testAddrs[2], false); m.AH != nil && m.AH.Partner.Protocol != ESP {
					t.Error("found a bundle without its partner")
					return
				}
				table.UnderPressure()
			}
		})
	}
	churn(t, table)
	close(stop)
	readers.Wait()
}

func churn(t *testing.T, table *Table[int]) {
	for i := range uint32(300) {
		ah := testEntry(0x900)
		ah.SA.Protocol = AH
		if err := errors.Join(table.Add(ah, testEntry(0x901)), table.Add(testEntry(0x1000+i))); err != nil {
			t.Error(err)
		}
		if err := table.Delete(ah.Handle); err != nil {
			t.Error(err)
		}
		if i%100 == 99 {
			if err := table.Replace([][]*Entry[int]{{testEntry(0x100)}, {testEntry(0x200)}}); err != nil {
				t.Error(err)
			}
		}
	}
}

// watched is the SAs of a few SPIs that one goroutine adds and deletes, and what
// the table must hold of them: version is odd while it changes.
type watched struct {
	spis    []uint32
	version atomic.Uint64
	now     atomic.Pointer[model]
}

// change adds an SA, or deletes one, and says so.
func (w *watched) change(t *testing.T, table *Table[int], random *rand.Rand) {
	old := w.now.Load()
	next := &model{bundles: slices.Clone(old.bundles)}
	w.version.Add(1)
	if n := len(next.bundles); n > 0 && random.IntN(2) == 0 {
		i := random.IntN(n)
		if err := table.Delete(next.bundles[i][0].Handle); err != nil {
			t.Error(err)
		}
		next.bundles = slices.Delete(next.bundles, i, i+1)
	} else {
		e := testEntry(w.spis[random.IntN(len(w.spis))])
		e.Dst, e.Protocol = testAddrs[random.IntN(len(testAddrs))], []Protocol{ESP, AH}[random.IntN(2)]
		if got, want := table.Add(e), next.add([]*Entry[int]{e}); !errors.Is(got, want) {
			t.Errorf("Add: %v, expected %v", got, want)
		}
	}
	w.now.Store(next)
	w.version.Add(1)
}

// check compares lookups with the list, and tells how many: none where that
// changed meanwhile.
func (w *watched) check(t *testing.T, table *Table[int], random *rand.Rand) (compared int) {
	const lookups = 50
	before := w.version.Load()
	spi, dst := w.spis[random.IntN(len(w.spis))], testAddrs[1+random.IntN(len(testAddrs)-1)]
	want := w.now.Load().lookup(spi, dst, testAddrs[1], false)
	for range lookups {
		got := table.Lookup(spi, dst, testAddrs[1], false)
		if before%2 != 0 || w.version.Load() != before {
			return compared
		}
		if compared++; got.ESP != want.ESP || got.AH != want.AH {
			t.Errorf("Lookup(%#x, %s) = %+v, expected %+v", spi, dst, got, want)
		}
	}
	return compared
}

// Lookups beside adds and deletes of two goroutines find what a linear scan
// finds, while the table grows. All SPIs are in one chain, where what one
// of the two changes lies beside what is the other's. Run with -race.
func TestTableAgainstModelConcurrently(t *testing.T) {
	const comparisons = 100000
	table := NewTable[int](0)
	sets := []*watched{{}, {}}
	for spi := uint32(0x100); len(sets[1].spis) < 8; spi++ {
		if w := sets[spi%2]; hash(spi)>>16 == hash(0x100)>>16 {
			w.spis = append(w.spis, spi)
		}
	}
	var changing, comparing sync.WaitGroup
	var stop atomic.Bool
	for i, w := range sets {
		w.now.Store(&model{})
		changing.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for !stop.Load() {
				w.change(t, table, random)
			}
		})
	}
	for i, w := range sets {
		comparing.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i)))
			for n := 0; n < comparisons && !t.Failed(); {
				n += w.check(t, table, random)
			}
		})
	}
	comparing.Wait()
	stop.Store(true)
	changing.Wait()
}
