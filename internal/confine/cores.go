package confine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NoCores keeps the process's memory, and so its keys, out of core dumps. The kernel writes none, not even
// for a Go panic; a dump by root's debugger (gcore) lacks the memory that the program has written. Other
// processes of the same user cannot look into this one either. Call it before the first key is read.
func NoCores() error {
	// First: once the process cannot be dumped, the file is root's.
	err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0)
	if err != nil {
		err = fmt.Errorf("core dumps: %w", err)
	}
	if no := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); no != nil {
		err = errors.Join(err, fmt.Errorf("core dumps: limit: %w", no))
	}
	if no := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); no != nil {
		err = errors.Join(err, fmt.Errorf("core dumps: %w", no))
	}
	return err
}
