package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests' children are this binary again, told by the environment what to be.
func TestMain(m *testing.M) {
	switch os.Getenv("CONFINE_TEST") {
	case "program":
		program(os.Args[1])
	case "poor":
		poor()
	case "no signals":
		noSignals()
	case "no proc":
		noProc()
	case "secret":
		secret(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

// result is what the program did, each with its error or nothing.
type result struct {
	Before, State State
	Applied       string
	Did           map[string]string
}

// program has a listener and threads, confines itself, waits for a line and then tries all that the
// running appliance does and much that it does not.
func program(dir string) {
	path := func(name string) string { return filepath.Join(dir, name) }
	listener, err := net.Listen("unix", path("run/socket"))
	fail(err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	stop := threads(5) // that exist when it happens
	var r result
	r.Before, err = Read()
	fail(err)
	if err := Apply(Plan{
		Read:    []string{path("etc/config"), path("etc/link")},
		Replace: []string{path("lib/state")},
		Remove:  []string{path("run/socket")},
		Dial:    []string{path("run/other")},
	}); err != nil {
		r.Applied = err.Error()
	}
	fmt.Println("confined")
	bufio.NewReader(os.Stdin).ReadString('\n')
	close(threads(5)) // later ones
	r.Did = attempt(path, listener)
	r.State, err = Read()
	fail(err)
	close(stop)
	fail(json.NewEncoder(os.Stdout).Encode(r))
}

// poor has fewer and fewer descriptors left, and tries to confine itself.
func poor() {
	for free := 7; free >= 0; free-- {
		probe, err := unix.Open("/", unix.O_PATH, 0)
		fail(err)
		fail(unix.Close(probe)) // the next one is the lowest that is free
		fail(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(probe + free), Max: 1024}))
		if err := Apply(Plan{}); err == nil {
			fail(fmt.Errorf("confined with %d descriptors", free))
		}
	}
	fmt.Println("goes on")
}

// noSignals tries to confine itself where no signal may wait.
func noSignals() {
	fail(unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{}))
	if err := Apply(Plan{}); err == nil {
		fail(errors.New("confined without a signal that may wait"))
	}
	fmt.Println("goes on")
}

// noProc tries to confine itself where /proc is not that of its processes, or is not there.
func noProc() {
	if err := Apply(Plan{}); err == nil {
		fail(errors.New("confined with another PID namespace's /proc"))
	}
	fail(errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/proc", "tmpfs", 0, "")))
	if err := Apply(Plan{}); err == nil {
		fail(errors.New("confined without /proc"))
	}
	fmt.Println("goes on")
}

func attempt(path func(string) string, listener net.Listener) map[string]string {
	did := map[string]string{}
	try := func(what string, do func() error) {
		did[what] = ""
		if err := do(); err != nil {
			did[what] = err.Error()
		}
	}
	read := func(name string) func() error {
		return func() error { _, err := os.ReadFile(name); return err }
	}
	try("read the configuration", read(path("etc/config")))
	try("read through a link", read(path("etc/link")))
	try("read a new key file beside", read(path("etc/new")))
	try("read the state", read(path("lib/state")))
	try("read elsewhere", read(path("elsewhere/file")))
	try("read /etc/passwd", read("/etc/passwd"))
	try("read /etc/shadow", read("/etc/shadow"))
	try("read a disk", read("/dev/mem"))
	try("write the configuration", func() error { return os.WriteFile(path("etc/config"), nil, 0o600) })
	try("make a file beside the configuration", func() error { return os.WriteFile(path("etc/more"), nil, 0o600) })
	try("replace the state", func() error { return replace(path("lib/state")) })
	try("lock the state", func() error { return lock(path("lib/state.lock")) })
	try("answer a client", func() error { return answer(listener) })
	try("remove the socket", func() error { return os.Remove(path("run/socket")) })
	try("dial the other socket", func() error { c, err := net.Dial("unix", path("run/other")); return errors.Join(err, closed(c)) })
	try("execute", func() error { return exec.Command(path("etc/true")).Run() })
	try("fork", func() error { _, err := syscall.ForkExec("/proc/self/exe", nil, nil); return err })
	for name, family := range map[string]int{"packet": unix.AF_PACKET, "UDP": unix.AF_INET, "netlink": unix.AF_NETLINK} {
		try("open a "+name+" socket", func() error { _, err := unix.Socket(family, unix.SOCK_DGRAM, 0); return err })
	}
	try("make an io_uring", func() error { return call(unix.SYS_IO_URING_SETUP, 1, 0, 0) })
	try("trace itself", func() error { return call(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0) })
	try("enter a namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) })
	try("be dumpable again", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) })
	try("signal its parent", func() error { return unix.Kill(os.Getppid(), 0) })
	try("signal itself", func() error { return unix.Kill(os.Getpid(), 0) })
	try("map code", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	})
	try("collect garbage", func() error { runtime.GC(); return nil })
	try("wait", func() error { time.Sleep(time.Millisecond); return nil })
	return did
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// threads starts threads that are there until the channel is closed.
func threads(n int) chan struct{} {
	stop, up := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			up <- struct{}{}
			<-stop
		}()
	}
	for range n {
		<-up
	}
	return stop
}

func call(number, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func closed(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// replace is what the state file goes through.
func replace(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "state.*.new")
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("new"))
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), path)); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func lock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Close(), os.Remove(path))
}

func answer(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("yes\n"))
	return errors.Join(err, c.Close())
}
