//go:build linux

package ledger

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked is that of a file which another process has locked.
const errLocked = unix.EWOULDBLOCK

func lock(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("ledger: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}
