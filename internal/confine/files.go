package confine

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

const (
	mayRead    landlock.AccessFSSet = ll.AccessFSReadFile
	mayReplace                      = mayRead | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSMakeReg | ll.AccessFSRemoveFile // its directory is opened for fsync
	mayRemove landlock.AccessFSSet = ll.AccessFSRemoveFile
	mayLook                        = mayRead | ll.AccessFSReadDir
)

const tasks = "/proc/self/task" // what Read reads

// restrictFiles allows the plan's files, and what Read reads.
func restrictFiles(p Plan) error {
	// It stays open: Landlock's rules are about inodes, and proc makes a new one for a directory that
	// nobody holds open.
	if _, err := unix.Open(tasks, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("files: %s: %w", tasks, err)
	}
	rules := []landlock.Rule{landlock.PathAccess(mayLook, tasks)}
	for _, r := range []struct {
		files  []string
		access landlock.AccessFSSet
	}{{p.Read, mayRead}, {p.Replace, mayReplace}, {p.Remove, mayRemove}, {p.Dial, ll.AccessFSResolveUnix}} {
		if dirs := directories(r.files); len(dirs) > 0 {
			rules = append(rules, landlock.PathAccess(r.access, dirs...).IgnoreIfMissing())
		}
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("files: %w", err)
	}
	return nil
}
