package program

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// Patience is how long anything may take on a machine that has much else to do.
const Patience = testkit.Patience

// Process is a program at work, with what it has said.
type Process struct {
	*exec.Cmd
	t      *testing.T
	exited chan struct{} // closed once it has ended, and all that it said was read
	err    error         // of its end, then

	mu   sync.Mutex
	said []string // lines
}

// Watch has the test cache see changes in a folder, whose files are read by
// processes that a test starts.
func Watch(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
}

// Command is tapsec with arguments. The files among these are looked at, so that the
// test cache sees their changes, too.
func Command(args ...string) *exec.Cmd {
	for _, a := range args {
		_, _ = os.Stat(a)
	}
	return exec.Command(Path, args...)
}

// Start runs tapsec until the test ends, and returns when frames flow.
func Start(t *testing.T, args ...string) *Process {
	t.Helper()
	p := Launch(t, nil, Command(args...))
	p.Await("msg=ready", 1)
	return p
}

// Launch starts a program in a namespace; nil is the test's own. It is ended and
// waited for when the test ends, in any case.
func Launch(t *testing.T, ns *netns.Namespace, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Cmd: cmd, exited: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.Do(cmd.Start) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	go func() {
		p.read(out)
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // has mostly ended; its children write into the same pipe
		_ = out.SetReadDeadline(time.Now().Add(Patience / 10))
		<-p.exited
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd, Tail(p.Text(), 60))
		}
	})
	return p
}

func (p *Process) read(out io.ReadCloser) {
	defer out.Close()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.mu.Lock()
		p.said = append(p.said, lines.Text())
		p.mu.Unlock()
	}
}

// Text is all that the program has said, on either stream.
func (p *Process) Text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// Times counts the lines that hold some text.
func (p *Process) Times(text string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.said {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// Await waits until so many lines hold some text. That may be the last that the
// program says.
func (p *Process) Await(text string, times int) {
	p.t.Helper()
	Await(p.t, p.Path+" says "+text, func() bool {
		ended := p.ended() // looked at first: then nothing more is said
		said := p.Times(text) >= times
		if ended && !said {
			p.t.Fatalf("%s has ended: %v\n%s", p.Cmd, p.err, Tail(p.Text(), 60))
		}
		return said
	})
}

func (p *Process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Join waits for the program's end, and for exit code 0.
func (p *Process) Join() {
	p.t.Helper()
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Fatalf("%s: %v\n%s", p.Cmd, p.err, Tail(p.Text(), 60))
		}
	case <-time.After(Patience):
		p.t.Fatalf("%s did not end within %s\n%s", p.Cmd, Patience, Tail(p.Text(), 60))
	}
}

// Stop ends the program as a service manager does.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	p.Join()
}

// Await polls for a condition.
func Await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, Patience)
		}
	}
}

// Tail is the end of a text, so many lines.
func Tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
