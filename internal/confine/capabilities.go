package confine

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// capabilities are the capabilities that the plan needs: usually none for its files, since the user owns
// them.
func (p Plan) capabilities() (keep []cap.Value) {
	if p.NetAdmin {
		keep = append(keep, cap.NET_ADMIN)
	}
	asOwner(func() {
		for _, file := range p.Read {
			if allowed(file, unix.R_OK) == unix.EACCES {
				keep = append(keep, cap.DAC_READ_SEARCH)
				break
			}
		}
		writes := func(path string) bool { return allowed(path, unix.W_OK) == unix.EACCES }
		if slices.ContainsFunc(directories(slices.Concat(p.Replace, p.Remove)), writes) || slices.ContainsFunc(p.Dial, writes) {
			keep = append(keep, cap.DAC_OVERRIDE)
		}
	})
	return keep
}

func allowed(path string, mode uint32) error {
	return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}

// asOwner runs f on a thread without effective capabilities. If the thread does not get them back, it ends
// with its goroutine.
func asOwner(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var had [2]unix.CapUserData
		if unix.Capget(&header, &had[0]) != nil {
			runtime.UnlockOSThread()
			return
		}
		now := had
		now[0].Effective, now[1].Effective = 0, 0
		if unix.Capset(&header, &now[0]) == nil {
			f()
		}
		if unix.Capset(&header, &had[0]) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

// dropCapabilities leaves the process only those of keep that it has. The bounding set, which matters only
// to an executed file, stays unless there is CAP_SETPCAP to change it.
func dropCapabilities(keep []cap.Value) error {
	left := cap.NewSet()
	had, err := cap.GetPID(0)
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	has := func(flag cap.Flag, v cap.Value) bool { on, err := had.GetFlag(flag, v); return on && err == nil }
	mayBound := has(cap.Effective, cap.SETPCAP)
	for v := range cap.MaxBits() {
		if slices.Contains(keep, v) && has(cap.Permitted, v) {
			if err := left.SetFlag(cap.Permitted, true, v); err != nil {
				return fmt.Errorf("capabilities: %w", err)
			}
			if err := left.SetFlag(cap.Effective, true, v); err != nil {
				return fmt.Errorf("capabilities: %w", err)
			}
		} else if mayBound {
			if err := cap.DropBound(v); err != nil {
				return fmt.Errorf("capabilities: bounding set: %w", err)
			}
		}
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("capabilities: ambient set: %w", err)
	}
	if err := left.SetProc(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

func noNewPrivileges() error {
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	return nil
}
