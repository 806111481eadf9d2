package confine

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

const (
	mayRead    landlock.AccessFSSet = ll.AccessFSReadFile
	mayReplace                      = mayRead | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSMakeReg | ll.AccessFSRemoveFile // its directory is opened for fsync
	mayRemove landlock.AccessFSSet = ll.AccessFSRemoveFile
	mayLook                        = mayRead | ll.AccessFSReadDir
)

const tasks = "/proc/self/task" // what Read reads

// held keeps the directory of the process in the kernel's memory: Landlock's rules are about inodes, and
// proc makes another one for a name that was forgotten.
var held *os.File

// restrictFiles lets the plan's files through, and what Read reads.
func restrictFiles(p Plan) error {
	var err error
	if held, err = os.Open(tasks); err != nil {
		return fmt.Errorf("files: %w", err)
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
