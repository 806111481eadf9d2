package test

import (
	"bufio"
	"bytes"
	"errors"
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

	"tapsec/test/program"
)

const patience = program.Patience

// process is one `tapsec run`.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer
	exited chan error

	mu  sync.Mutex
	log []string
}

// launch starts `tapsec run` on a configuration file and waits for nothing.
func launch(t *testing.T, config string, flags ...string) *process {
	t.Helper()
	return launchAs(t, &syscall.SysProcAttr{}, config, flags...)
}

func launchAs(t *testing.T, attr *syscall.SysProcAttr, config string, flags ...string) *process {
	t.Helper()
	cmd := program.Command(append([]string{"run", "-c", config}, flags...)...)
	cmd.SysProcAttr = attr
	return launchProgram(t, cmd)
}

func launchProgram(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan error, 1)}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		p.read(stderr)
		p.exited <- p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("tapsec said:\n%s\n%s", p.logged(), p.stdout.String())
		}
	})
	return p
}

// start launches and waits until frames flow.
func start(t *testing.T, config string, flags ...string) *process {
	t.Helper()
	p := launch(t, config, flags...)
	p.waitLog("msg=ready")
	return p
}

func (p *process) read(stderr io.Reader) {
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.mu.Lock()
		p.log = append(p.log, lines.Text())
		p.mu.Unlock()
	}
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// waitLog waits for a log line that contains text, which is then taken out of
// the log with all lines before it; they are returned.
func (p *process) waitLog(text string) string {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if before, ok := p.take(text); ok {
			return before
		}
	}
	p.t.Fatalf("no log line with %q within %s", text, patience)
	return ""
}

func (p *process) take(text string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, line := range p.log {
		if strings.Contains(line, text) {
			taken := strings.Join(p.log[:i+1], "\n")
			p.log = p.log[i+1:]
			return taken, true
		}
	}
	return "", false
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the process to end with that code and returns its summary.
func (p *process) end(code int) string {
	p.t.Helper()
	select {
	case err := <-p.exited:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.t.Fatal(err)
		}
	case <-time.After(patience):
		p.t.Fatalf("tapsec did not end within %s", patience)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("tapsec ended with %s, want exit code %d", p.cmd.ProcessState, code)
	}
	return p.stdout.String()
}

// stop ends the process as a service manager does.
func (p *process) stop() string {
	p.t.Helper()
	p.signal(unix.SIGTERM)
	return p.end(0)
}

// write puts a configuration into a file of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tapsec.yaml")
	rewrite(t, path, text)
	return path
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
