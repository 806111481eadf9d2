// Package confine takes from the process what it needs no more once all is open: capabilities, new
// privileges, files, system calls, and core dumps. What is open stays open and works.
//
// Everything holds for all threads, cannot be taken back, and is done as far as the kernel has it:
// what could not be done is an error for the log, not for the program to end with. Whether it worked
// is for Read to tell, which asks the kernel.
package confine

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Plan is what the process still does with files. A file may be replaced by another of the same name, so
// what is allowed is allowed in the file's whole directory, that of the name and that of what the name
// points to. The zero value is a program that opens nothing more.
type Plan struct {
	Read    []string // files that are read again
	Replace []string // files of which a new version is written beside, and renamed
	Remove  []string // files that are removed at the end
	Dial    []string // Unix sockets of others
}

// Apply confines the process for good. Its callers have everything open, and nobody else starts threads
// by other means than Go's meanwhile.
//
//  1. Capabilities, down to those without which the plan's files cannot be used.
//  2. No new privileges: an executed file's owner or capabilities give nothing.
//  3. Files: Landlock (Linux 5.13) lets through what the plan names, and in it no execution; with it go
//     TCP, and signals and abstract sockets to processes that are not confined.
//  4. System calls: those that a Go program at work and this one make; others fail with EPERM.
func Apply(p Plan) error {
	if err := spare(); err != nil {
		return err
	}
	_, _ = time.Now().Zone() // reads the time zone's file, while it can be read
	Landlock()
	return errors.Join(
		dropCapabilities(p.capabilities()),
		noNewPrivileges(),
		restrictFiles(p),
		restrictCalls(p),
	)
}

// spare reports whether there are descriptors for what Apply opens. The library that
// reaches all threads of a C program reads /proc, and kills the process where it cannot.
func spare() error {
	const wanted = 8
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

// directories are those of files, and of what these point to.
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
