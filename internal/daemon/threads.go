package daemon

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// spareThreads are as many as a running program may have in the kernel at once beside its
// workers, however slow that is: two for each client of the control socket and of the
// metrics, which take 16 and 4 of them, and some for its files and its log.
const spareThreads = 2*(16+4) + 8

// reserveThreads has the runtime make the threads that so many workers, and what goes on
// beside them, will need, and that it never gives back. It ends the program when it wants
// one and the kernel has none left, which is whenever somebody else has used up what a
// user, a control group or the machine may have.
func reserveThreads(workers int) {
	var all sync.WaitGroup
	all.Add(workers + spareThreads)
	for range workers + spareThreads {
		go func() {
			runtime.LockOSThread() // each waits in one of its own
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		}()
	}
	all.Wait()
}

// enoughThreads is an error if the control groups of the process do not let it have the threads that so many
// workers need, since the runtime ends the program without a sentence then. Of other limits nobody can tell
// how much is left.
func enoughThreads(root string, workers int) error {
	const runtimes = 10 // threads of its own
	left, group := threadsLeft(root)
	have, _ := os.ReadDir(root + "/proc/self/task")
	if need := workers + spareThreads + runtimes; left < need-len(have) {
		return fmt.Errorf("tapsec needs %d threads, has %d, and %s allows %d more: raise that (systemd: TasksMax=, docker: --pids-limit)",
			need, len(have), group, left)
	}
	return nil
}

// threadsLeft returns how many more threads the process may have, and which file says so: that of its control
// group, or of one around it (kernel, admin-guide/cgroup-v1/pids.rst, cgroup-v2.rst).
func threadsLeft(root string) (left int, file string) {
	left = math.MaxInt
	groups, _ := os.ReadFile(root + "/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(line, ":")
		if controllers != "" && controllers != "pids" {
			continue
		}
		for path, last := filepath.Clean("/"+path), false; !last; path = filepath.Dir(path) { // which may begin with /..
			last = path == "/"
			at := filepath.Join("/sys/fs/cgroup", controllers, path)
			most, err := number(root + at + "/pids.max") // none is "max"
			now, err2 := number(root + at + "/pids.current")
			if err == nil && err2 == nil && most-now < left {
				left, file = max(most-now, 0), at+"/pids.max"
			}
		}
	}
	return left, file
}

func number(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
