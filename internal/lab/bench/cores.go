package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cores lists the processors that this process may run on.
func cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask which processors there are: %w", err)
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all, nil
}

// pin binds the calling thread to some processors.
func pin(cores ...int) error { return affinity(0, cores) }

func affinity(thread int, cores []int) error {
	var set unix.CPUSet
	for _, c := range cores {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(thread, &set); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stay on processors %v: %w", cores, err)
	}
	return nil
}

// onCore runs do on a thread of its own that stays on one processor and ends with it.
func onCore(core int, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends
		if err := pin(core); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// confine binds all threads of this process, and so the threads that they start, to some processors. It
// repeats until there is no new thread, since a thread not yet reached may start another. The runtime soon
// takes this for a machine with fewer processors, and runs fewer goroutines at once.
func confine(cores ...int) error {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var known []string
	for {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		news := false
		for _, e := range entries {
			thread, err := strconv.Atoi(e.Name())
			if err != nil || slices.Contains(known, e.Name()) {
				continue
			}
			if err := affinity(thread, cores); err != nil {
				return err
			}
			known, news = append(known, e.Name()), true
		}
		if !news {
			return nil
		}
	}
}

func processTime() time.Duration { return clock(unix.CLOCK_PROCESS_CPUTIME_ID) }
func wallTime() time.Duration    { return clock(unix.CLOCK_MONOTONIC) }

func clock(which int32) time.Duration {
	var now unix.Timespec
	unix.ClockGettime(which, &now) // fails only for clocks that do not exist
	return time.Duration(now.Nano())
}

// stayAwake keeps the process from being idle, but yields the processor to others.
func stayAwake(d time.Duration) {
	for begin := wallTime(); wallTime()-begin < d; {
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// emptyCall is how long a system call that does nothing takes, in nanoseconds.
func emptyCall() spread {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const calls = 20000
	var took []float64
	for range 21 {
		begin := wallTime()
		for range calls {
			unix.Getppid()
		}
		took = append(took, float64(wallTime()-begin)/calls)
	}
	return spreadOf(took)
}
