package sa

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// sizes are the numbers of SAs that the table is measured with.
var sizes = []int{1, 1000, 1000000}

// entries are n SAs to one destination, with SPIs drawn at random, as IKE
// daemons draw them.
func entries(n int) []*Entry[int] {
	random, seen := rand.New(rand.NewPCG(1, 2)), map[uint32]bool{}
	all := make([]*Entry[int], 0, n)
	for len(all) < n {
		if spi := random.Uint32(); spi > 255 && !seen[spi] {
			seen[spi] = true
			all = append(all, &Entry[int]{SA: &SA{SPI: spi, Dst: testAddrs[1], Protocol: ESP, Mode: Tunnel}})
		}
	}
	return all
}

func filled(b *testing.B, all []*Entry[int]) *Table[int] {
	table := NewTable[int](0)
	for _, e := range all {
		if err := table.Add(e); err != nil {
			b.Fatal(err)
		}
	}
	return table
}

// BenchmarkLookup finds SAs in random order, so that none is in a cache that
// does not hold them all.
func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := entries(n)
			table, spis := filled(b, all), shuffled(all)
			i := 0
			for b.Loop() {
				if table.Lookup(spis[i], testAddrs[1], netip.Addr{}, false).ESP == nil {
					b.Fatal("an SA was not found")
				}
				if i++; i == len(spis) {
					i = 0
				}
			}
		})
	}
}

func shuffled(all []*Entry[int]) []uint32 {
	spis := make([]uint32, len(all))
	for i, at := range rand.Perm(len(all)) {
		spis[i] = all[at].SPI
	}
	return spis
}

// BenchmarkFill adds n SAs to an empty table and deletes them again. It reports
// nanoseconds for each, the longest Add, and what the table itself takes of
// memory for one SA.
func BenchmarkFill(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var add, longest, remove, memory float64
			for b.Loop() {
				all := entries(n)
				before, start := heap(), time.Now()
				table := NewTable[int](0)
				for _, e := range all {
					begin := time.Now()
					if err := table.Add(e); err != nil {
						b.Fatal(err)
					}
					longest = max(longest, float64(time.Since(begin)))
				}
				add += float64(time.Since(start))
				memory = float64(heap()-before) / float64(n)
				start = time.Now()
				for _, e := range all {
					if err := table.Delete(e.Handle); err != nil {
						b.Fatal(err)
					}
				}
				remove += float64(time.Since(start))
			}
			per := 1 / float64(n*b.N)
			b.ReportMetric(add*per, "ns/add")
			b.ReportMetric(remove*per, "ns/delete")
			b.ReportMetric(longest, "longest-add-ns")
			b.ReportMetric(memory, "B/SA")
		})
	}
}

// heap is what is in use of the heap after all garbage has been collected.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkBeside finds SAs in random order while another core adds and deletes
// as fast as it can. It reports those pairs per second.
func BenchmarkBeside(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := entries(n + 1000)
			table, spis := filled(b, all[:n]), shuffled(all[:n])
			var pairs, stop atomic.Int64
			ended := make(chan error)
			go func() { ended <- churnUntil(table, all[n:], &pairs, &stop) }()
			i, start := 0, time.Now()
			for b.Loop() {
				if table.Lookup(spis[i], testAddrs[1], netip.Addr{}, false).ESP == nil {
					b.Fatal("an SA was not found")
				}
				if i++; i == len(spis) {
					i = 0
				}
			}
			b.ReportMetric(float64(pairs.Load())/time.Since(start).Seconds(), "pairs/s")
			stop.Store(1)
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}

func churnUntil(table *Table[int], come []*Entry[int], pairs, stop *atomic.Int64) error {
	for i := 0; stop.Load() == 0; i++ {
		e := &Entry[int]{SA: come[i%len(come)].SA}
		if err := table.Add(e); err != nil {
			return err
		}
		if err := table.Delete(e.Handle); err != nil {
			return err
		}
		pairs.Add(1)
	}
	return nil
}
