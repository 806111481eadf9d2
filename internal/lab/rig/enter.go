package rig

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
)

// ErrDied says that a rig's supervisor has ended without TakeDown.
var ErrDied = errors.New("has died")

// ErrNoHost says that a rig has no host of that name.
var ErrNoHost = errors.New("has no host")

// Enter turns this process into a command inside one of the rig's hosts, in its present directory; without a
// command, into the user's shell. To get there it runs this very program with the arguments via, host,
// directory, "--" and the command, which must call ExecInside. It returns only on an error.
//
// A process with threads cannot join another user namespace, so nsenter(1) does it. It replaces this process
// and is replaced in turn, so terminal, signals and exit code are the command's own.
func (s *State) Enter(host string, command []string, via ...string) error {
	i := slices.IndexFunc(s.Hosts, func(h Host) bool { return h.Name == host })
	switch {
	case i < 0:
		var names []string
		for _, h := range s.Hosts {
			names = append(names, h.Name)
		}
		return fmt.Errorf("rig %s %w %q; there are %s", s.Name, ErrNoHost, host, strings.Join(names, ", "))
	case !s.Up():
		return fmt.Errorf("rig %s %w; tapsec rig up %[1]s puts it up again", s.Name, ErrDied)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return errors.New("nsenter is needed to enter a rig; install util-linux")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	if len(command) == 0 {
		command = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh")}
	}
	pid := strconv.Itoa(s.Supervisor.PID)
	args := []string{nsenter, "--target", pid, "--mount", "--net"}
	if s.Hosts[i].Interface != "" { // the name is one in the rig's mount namespace
		args[len(args)-1] = fmt.Sprintf("--net=/proc/%s/root%s/%s", pid, netns.Names, host)
	}
	if space(pid, "user") != space("self", "user") {
		args = append(args, "--user", "--preserve-credentials")
	}
	args = slices.Concat(args, []string{"--", self}, via, []string{host, dir, "--"}, command)
	if err := os.Setenv(idVar, s.ID); err != nil {
		return err
	}
	err = syscall.Exec(nsenter, args, os.Environ())
	return fmt.Errorf("run %s: %w", nsenter, err)
}

// ExecInside turns this process, which Enter brought into a host, into a command there, in a directory. For the
// command the machine has the host's name, so that a shell's prompt shows it. It returns only on an error,
// which wraps exec.ErrNotFound if there is no such command.
func ExecInside(host, dir string, command []string) error {
	if err := os.Chdir(dir); err != nil {
		fmt.Fprintf(os.Stderr, "tapsec: stays in /: %v\n", err)
	}
	path, err := exec.LookPath(command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return fmt.Errorf("%s: %w", command[0], errors.Unwrap(err))
	}
	runtime.LockOSThread() // the thread that unshares is the one that execs
	if unix.Unshare(unix.CLONE_NEWUTS) == nil {
		_ = unix.Sethostname([]byte(host)) // only a prompt shows it
	}
	err = syscall.Exec(path, command, os.Environ())
	return fmt.Errorf("run %s: %w", path, err)
}
