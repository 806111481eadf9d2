package tap

import (
	"errors"
	"os"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
)

// What was opened many times has let go of its descriptors, threads and mappings as often.
func TestNothingLeaks(t *testing.T) { engines(t, testNothingLeaks) }

func testNothingLeaks(t *testing.T, how Options) {
	rig.Require(t)
	cycle := func() {
		a, b := openTAP(t, Config{Name: "la", Queues: 2}), openTAP(t, Config{Name: "lb", Queues: 2})
		how.Room = 1514
		ended := make(chan error)
		count := 0
		for queue := range 2 {
			workers, err := Join(a, b, queue, how)
			if err != nil {
				t.Fatal(err)
			}
			for _, worker := range workers {
				count++
				go func() {
					_, _, err := worker.Next()
					ended <- err
				}()
				time.AfterFunc(time.Millisecond, worker.Stop)
			}
		}
		for range count {
			if err := <-ended; !errors.Is(err, ErrStopped) {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	leaksNothing(t, cycle)
}

// leaksNothing runs a cycle many times and compares what the process holds.
func leaksNothing(t *testing.T, cycle func()) {
	t.Helper()
	held := func() (sum [3]int) {
		for i, what := range []string{"fd", "task", "map_files"} {
			entries, err := os.ReadDir("/proc/self/" + what)
			if err != nil {
				t.Fatal(err)
			}
			sum[i] = len(entries)
		}
		return sum
	}
	const warm, cycles, slack = 10, 30, 20 // the runtime keeps a few threads, and their maps
	for range warm {
		cycle()
	}
	before := held()
	for range cycles {
		cycle()
	}
	for i, after := range held() {
		if after > before[i]+slack {
			t.Errorf("descriptors, threads, maps: %v, then %v", before, held())
			break
		}
	}
}

// The same of what is attached: workers that ran, and some that never began.
func TestAttachedLeaksNothing(t *testing.T) { attachments(t, testAttachedLeaksNothing) }

func testAttachedLeaksNothing(t *testing.T, how Options) {
	rig.Require(t)
	remove, err := rig.QuietVeths(1500, "va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	how.Room = 1514
	turn := 0
	leaksNothing(t, func() {
		a, err1 := Attach("va")
		b, err2 := Attach("vb")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		workers, err := Join(a, b, 0, how)
		if err != nil || len(workers) != 2 {
			t.Fatal(workers, err)
		}
		if turn++; turn%2 == 0 {
			workers[0].Stop()
			if _, _, err := workers[0].Next(); !errors.Is(err, ErrStopped) {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := workers[1].Next(); err == nil {
			t.Fatal("a worker goes on without its devices")
		}
	})
}
