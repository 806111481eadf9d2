package daemon

import (
	"runtime"
	"sync"
)

// spareThreads are more than a running program has beside each other in the kernel, for
// its files, its log and its clients.
const spareThreads = 16

// reserveThreads has the runtime make threads that it will need later, and that it never
// gives back. It ends the program when it wants one and the kernel has none left, which is
// whenever somebody else has used up what a user, a control group or the machine may have.
func reserveThreads() {
	var all sync.WaitGroup
	all.Add(spareThreads)
	for range spareThreads {
		go func() {
			runtime.LockOSThread() // each waits in one of its own
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		}()
	}
	all.Wait()
}
