package daemon

import (
	"runtime"
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
