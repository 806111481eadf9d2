// Package confine takes from the process what it no longer needs once everything is open: capabilities,
// new privileges, files, system calls, and core dumps. What is open stays open and works.
//
// This holds for all threads, cannot be undone, and goes as far as the kernel supports it. What could not
// be done is an error for the log, not a reason to end. Read asks the kernel what is left.
package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Plan is what the process will still do with files. A file may be replaced by another of the same name,
// so permission is for its directory and, if it is a link, for that of its target. The zero Plan opens
// nothing more.
type Plan struct {
	Read    []string // files that are read again
	Replace []string // files that are replaced: a new one is written beside them and renamed
	Remove  []string // files that are removed at the end
	Dial    []string // Unix sockets of other programs

	NetAdmin bool // ask the kernel what it tells only to an administrator of its network
}

// Apply confines the process for good. Everything must be open already, and meanwhile only Go may start
// threads.
//
//  1. Capabilities, down to those without which the plan's files cannot be used.
//  2. No new privileges: an executed file's owner or capabilities give nothing.
//  3. Files: Landlock (Linux 5.13) allows what the plan names, but no execution. It also forbids TCP, and
//     signals and abstract sockets to processes that are not confined.
//  4. System calls: those that any Go program makes, and this one; others fail with EPERM.
func Apply(p Plan) error {
	if err := spare(); err != nil {
		return err
	}
	_, _ = time.Now().Zone() // reads the time zone's file while that is allowed
	Landlock()
	return errors.Join(
		dropCapabilities(p.capabilities()),
		noNewPrivileges(),
		restrictFiles(p),
		restrictCalls(p),
	)
}

// spare is an error if too few descriptors are left for Apply, if no signal may wait, or if /proc does not show
// this process. All threads are reached by a real-time signal, which Go sends again until it is let wait. The
// library that reaches those of a program with C kills the process if it cannot read there which those are, and
// waits forever for another process's.
func spare() error {
	const wanted, mount = 8, "mount -t proc proc /proc"
	var pending unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_SIGPENDING, &pending) == nil && pending.Cur == 0 {
		return errors.New("not one signal may wait: ulimit -i 1000")
	}
	if self, err := os.Readlink("/proc/self"); err != nil {
		return fmt.Errorf("there is no /proc: %s (%w)", mount, err)
	} else if self != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc is that of another PID namespace: %s", mount)
	}
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for range wanted {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%d free descriptors are needed (ulimit -n): %w", wanted, err)
		}
		held = append(held, fd)
	}
	return nil
}

// directories are those of files, and of the targets of links among them.
func directories(files []string) []string {
	seen := map[string]bool{}
	var all []string
	add := func(file string) {
		file, err := filepath.Abs(file)
		if dir := filepath.Dir(file); err == nil && !seen[dir] {
			seen[dir] = true
			all = append(all, dir)
		}
	}
	for _, file := range files {
		add(file)
		if target, err := filepath.EvalSymlinks(file); err == nil {
			add(target)
		}
	}
	return all
}
