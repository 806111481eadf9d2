package confine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NoCores keeps the process's memory, and so its keys, out of core dumps: the kernel writes none, for
// which Go asks in a panic as well, and what a debugger of root's writes (gcore) lacks the memory that
// the program fills. It also keeps other processes of the same user from looking into this one. It
// belongs before the first key is read.
func NoCores() error {
	// First, for the file is root's once the process cannot be dumped.
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
