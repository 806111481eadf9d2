package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one run of a program. A pid alone may since belong to another.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // when it started, in clock ticks after boot (proc(5), stat, field 22)
}

// ProcessOf returns the run of a program that has a pid now.
func ProcessOf(pid int) (Process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	// The second field is the program's name in brackets, and may itself hold blanks and brackets.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const state, start = 0, 22 - 3 // from the third field on
	if len(fields) <= start {
		return Process{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return Process{}, os.ErrProcessDone
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	return Process{pid, ticks}, err
}

// Alive reports whether it still runs. A process that has ended and waits for its parent does not.
func (p Process) Alive() bool {
	now, err := ProcessOf(p.PID)
	return err == nil && now == p
}

// signal sends signals to p, and to nobody who has its pid later.
func (p Process) signal(signals ...os.Signal) error {
	handle, err := os.FindProcess(p.PID) // holds the process, not the number
	if err != nil {
		return nil // gone
	}
	defer handle.Release()
	if !p.Alive() {
		return nil
	}
	for _, s := range signals {
		if err := handle.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end process %d: %w", p.PID, err)
		}
	}
	return nil
}

// space names a namespace of a process or thread as the kernel does, for instance net:[4026531840]; it is
// empty if it cannot be seen. The kernel reuses the number once the namespace is gone.
func space(process, kind string) string {
	name, err := os.Readlink("/proc/" + process + "/ns/" + kind)
	if err != nil {
		return ""
	}
	return name
}

// environment reports whether a process was started with that variable, as far as this user may see.
func environment(pid int, variable string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(text, []byte{0}) {
		if string(v) == variable {
			return true
		}
	}
	return false
}

// pids lists all processes.
func pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all, nil
}

// owner reports whether this user owns a file and nobody else may write it.
func owner(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0
}
