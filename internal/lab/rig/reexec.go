// Package rig makes disposable networks: namespaces, interfaces, neighbours and routes, and packet sockets to
// send and receive frames. Demo, bench and the tests run in one, and nothing they do reaches the machine's own
// network.
//
// Reexec runs this program again in fresh namespaces, with or without root; the rest of the package is for
// use inside. Everything goes away with the process, since namespaces end with their last user.
//
// A rig can also stay up in the background, and its State on disk: Acquire and Start put it up, Enter goes
// into it, TakeDown ends it, from any process. Only these are called outside.
package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const insideVar = "TAPSEC_RIG"

// ErrRefused says that the kernel does not let this process make namespaces. What wraps it says why, and what
// to do.
var ErrRefused = errors.New("no namespaces to be had here")

// Inside reports whether this process was started by Reexec.
func Inside() bool { return os.Getenv(insideVar) != "" }

// Reexec runs this very program again with args, in fresh network and mount namespaces and, if privileges are
// missing, in a fresh user namespace that makes the caller root. Input, output, signals and the exit code pass
// through; a child ended by a signal yields 128 plus the signal's number. An error that wraps ErrRefused means
// that nothing was run.
func Reexec(args ...string) (int, error) { return reexec(privileged(), args) }

func reexec(privileged bool, args []string) (int, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVar+"="+strconv.Itoa(os.Getpid()))
	cmd.SysProcAttr = fresh(privileged)
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL

	runtime.LockOSThread() // the child's death signal is sent when the thread that started it ends
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(s) { // as nohup(1) has it; the child inherits that
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, refusal(err)
	}
	ended := make(chan struct{})
	go forward(signals, cmd.Process, ended)
	err := cmd.Wait()
	close(ended)
	return exitCode(cmd.ProcessState, err)
}

// fresh describes the namespaces of a child.
func fresh(privileged bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if !privileged {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// forward passes signals on, except those that the terminal has already sent to the child, as part of the
// foreground process group.
func forward(signals <-chan os.Signal, child *os.Process, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() {
				continue
			}
			child.Signal(s) // fails only once the child has ended
		case <-ended:
			return
		}
	}
}

func inForeground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// refusal says why the kernel started no child in namespaces of its own, and what to do.
func refusal(err error) error {
	why, remedy := advice(err)
	return fmt.Errorf("%w: %s: %s (%w)", ErrRefused, why, remedy, err)
}

func advice(err error) (why, remedy string) {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "this user may not make namespaces", "run as root, or allow it with sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0; in a container seccomp may forbid it"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return "the limit on namespaces is reached", "raise sysctl user.max_user_namespaces and user.max_net_namespaces"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "this kernel was built without user or network namespaces", "run as root or choose another kernel"
	}
	return "the program cannot be run again", "look at the error behind this"
}
