//go:build unix

package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// readable reports whether there is something to read, or the end.
func readable(file *os.File) (is bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		is = err == nil && n == 1
	})
	return is && err == nil
}
