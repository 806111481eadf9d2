package linux

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take on a machine that has much else to do.
const patience = time.Minute

// process is a program and what it says.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	once sync.Once

	mu    sync.Mutex
	lines []string
	ended bool
	err   error
}

// launch starts a program, whose output is read from the stream named. It ends
// with the test at the latest: stop tells it to, and waits.
func launch(t *testing.T, cmd *exec.Cmd, stderr bool) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	pipe := cmd.StdoutPipe
	if stderr {
		pipe = cmd.StderrPipe
	}
	out, err := pipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), strings.Join(p.lines, "\n"))
		}
	})
	return p
}

func (p *process) read(out io.Reader) {
	for s := bufio.NewScanner(out); s.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		p.mu.Unlock()
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	p.ended, p.err = true, err
	p.mu.Unlock()
}

// await waits until the program has said something so many times, and returns the
// line.
func (p *process) await(what string, times int) string {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		lines, ended := p.lines, p.ended
		p.mu.Unlock()
		n := 0
		for _, line := range lines {
			if strings.Contains(line, what) {
				if n++; n == times {
					return line
				}
			}
		}
		if ended || time.Now().After(deadline) {
			p.t.Fatalf("%s did not say %q", p.cmd.Path, what)
		}
	}
}

func (p *process) finished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// stop ends the program and waits for its end.
func (p *process) stop() {
	p.once.Do(func() {
		p.in.Close()
		_ = p.cmd.Process.Signal(unix.SIGTERM)
		for deadline := time.Now().Add(patience); !p.finished(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				_ = p.cmd.Process.Kill()
			}
		}
	})
}

// guest boots user-mode Linux with a script of this folder as its init. Its
// network device vec0 is a packet socket on an interface. The folder out is
// shared.
func guest(t *testing.T, script, on, out string) *process {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, exec.Command("linux.uml", "mem=256M", "rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro",
		"LIVE=1", "OUT="+out, "init="+filepath.Join(here, script),
		fmt.Sprintf("vec0:transport=raw,ifname=%s,depth=128,mtu=%d", on, mtu), "MAC=02:00:00:00:00:02", "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet"), false)
}

// mtu of the wire: packets filled up and put into tunnels are no fragments then.
const mtu = 4000
