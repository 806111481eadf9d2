package strongswan

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

	"tapsec/rig"
)

// patience is how long anything may take on a machine that has much else to do.
const patience = 60 * time.Second

// process is a program in a namespace, with what it has said.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan error

	mu   sync.Mutex
	said []string // lines
}

// launch starts a program in a namespace; nil is the test's own. It is ended and
// waited for when the test ends, in any case.
func launch(t *testing.T, ns *rig.Namespace, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan error, 1)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
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
		p.exited <- cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGKILL) // has mostly ended
		<-p.exited
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd, tail(p.text(), 60))
		}
	})
	return p
}

func (p *process) read(out io.ReadCloser) {
	defer out.Close()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.mu.Lock()
		p.said = append(p.said, lines.Text())
		p.mu.Unlock()
	}
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// times counts the lines that hold some text.
func (p *process) times(text string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.said {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// wait waits for the end, and for exit code 0.
func (p *process) wait() {
	p.t.Helper()
	select {
	case err := <-p.exited:
		if err != nil {
			p.t.Fatalf("%s: %v\n%s", p.cmd, err, tail(p.text(), 60))
		}
	case <-time.After(patience):
		p.t.Fatalf("%s did not end within %s\n%s", p.cmd, patience, tail(p.text(), 60))
	}
}

// stop ends the program as a service manager does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	p.wait()
}

// await polls for a condition.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
