package soak

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How the program's standard error is read.
const (
	attentive = iota
	slow      // a line now and then
	deaf      // not at all
)

const (
	patience     = 30 * time.Second // for a start and for an end
	linesASecond = 400              // of a log, more than its rates allow
	tailLines    = 12
	memoryGrowth = 48 << 10 // kilobytes beyond what a program has after warming up
	filesGrowth  = 8        // descriptors, likewise
	warmUp       = 5 * time.Second
)

// process is one run of a host's program.
type process struct {
	c       *campaign
	name    string
	cmd     *exec.Cmd
	out     bytes.Buffer
	ear     atomic.Int32
	dead    chan struct{}
	exited  chan struct{} // closed once it has ended and its output was read
	err     error         // why, once exited
	filler  *os.File      // our copy of the pipe's end that the program logs to
	wanted  atomic.Bool
	started time.Time
	ready   chan struct{}
	once    sync.Once // closes ready

	mu     sync.Mutex
	tail   []string
	second string // of the log's latest line
	lines  int    // in it

	warm *usage // the campaign's
}

// usage is what a process takes of the machine.
type usage struct{ memory, files, threads int }

// start starts a program and returns at once.
func (c *campaign) start(name string, args ...string) (*process, error) {
	p := &process{c: c, name: name, cmd: c.o.Command(args...), dead: make(chan struct{}), exited: make(chan struct{}), ready: make(chan struct{}), started: time.Now()}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	p.cmd.Stdout = &p.out
	said, saying, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer saying.Close()
	p.cmd.Stderr = saying
	// A file description of its own, so that only this one does not block.
	if p.filler, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", saying.Fd()), os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	heard := make(chan struct{})
	go func() {
		p.listen(said)
		said.Close()
		close(heard)
	}()
	go func() {
		p.err = p.cmd.Wait()
		close(p.dead)
		p.filler.Close()
		<-heard
		close(p.exited)
		p.unexpected()
	}()
	return p, nil
}

// unexpected judges an end that nobody asked for. With a full disk a program need
// not start.
func (p *process) unexpected() {
	kind, what := "start", "does not start"
	select {
	case <-p.ready:
		kind, what = "end", "has ended by itself"
	default:
	}
	if !p.wanted.Load() && !(kind == "start" && p.c.full.Load() && p.cmd.ProcessState.ExitCode() <= 2) {
		p.c.violate(kind, "%s %s, %v; it said\n%s", p.name, what, p.err, p.said())
	}
}

// deafen stops reading the log, and leaves no room in the pipe for a single line.
func (p *process) deafen() {
	p.ear.Store(deaf)
	for err := error(nil); err == nil; {
		_ = p.filler.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) // of a pipe, never fails
		_, err = p.filler.WriteString("\n")
	}
}

func (p *process) listen(said io.Reader) {
	lines := bufio.NewReaderSize(said, 4096)
	for {
		for p.ear.Load() == deaf && p.alive() {
			time.Sleep(5 * time.Millisecond)
		}
		if p.ear.Load() == slow && p.alive() {
			time.Sleep(50 * time.Millisecond)
		}
		text, err := lines.ReadString('\n')
		if text = strings.TrimSuffix(text, "\n"); text != "" {
			p.hear(text)
		}
		if err != nil {
			return
		}
	}
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// hear judges a line of the log.
func (p *process) hear(text string) {
	if strings.Contains(text, "msg=ready") {
		p.once.Do(func() { close(p.ready) })
	}
	if p.c.sas.shows(text) {
		p.c.violate("secret", "%s: a line of its log holds part of a key: %s", p.name, text)
	}
	if strings.Contains(text, "panic:") || strings.Contains(text, "fatal error:") {
		p.c.violate("panic", "%s: %s", p.name, text)
	}
	p.mu.Lock()
	p.tail = append(p.tail, text)
	p.tail = p.tail[max(0, len(p.tail)-tailLines):]
	now := text[:min(len(text), len("time=2006-01-02T15:04:05"))] // the line's own time: after a silence many come at once
	if now != p.second {
		p.second, p.lines = now, 0
	}
	p.lines++
	lines := p.lines
	p.mu.Unlock()
	if lines == linesASecond && p.ear.Load() == attentive {
		p.c.violate("log", "%s writes more than %d lines in one second", p.name, linesASecond)
	}
}

// said is the end of the log.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "    " + strings.Join(p.tail, "\n    ")
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) } // a process that has ended is noticed elsewhere

// end ends the program by a signal and judges how it went.
func (p *process) end(s syscall.Signal) {
	p.wanted.Store(true)
	if p.gone() {
		return // that was noticed elsewhere
	}
	p.signal(s)
	p.signal(unix.SIGCONT)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.c.violate("end", "%s does not end within %s of %s; it said\n%s", p.name, patience, s, p.said())
		p.signal(unix.SIGKILL)
		<-p.exited
		return
	}
	code := p.cmd.ProcessState.ExitCode()
	if s == unix.SIGTERM && code != 0 && !(code == 1 && p.c.full.Load()) { // the state could not be written
		p.c.violate("end", "%s ends with exit code %d after SIGTERM; it said\n%s", p.name, code, p.said())
	}
}

// gone reports whether the process has ended.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// weigh compares what the process takes of the machine with what it took when it
// was warm. It may take a moment to give descriptors back.
func (p *process) weigh() {
	if time.Since(p.started) < warmUp {
		return
	}
	now, err := p.usage()
	if errors.Is(err, os.ErrPermission) {
		p.c.unweighed.Do(func() { p.c.say("memory and descriptors are not weighed: %v", err) })
	}
	if p.warm == nil && err == nil {
		p.warm = &now
	}
	for deadline := time.Now().Add(patience); err == nil && now.files > p.warm.files+filesGrowth; now, err = p.usage() {
		if time.Now().After(deadline) {
			p.c.violate("descriptors", "%s has %d descriptors, %d when it was warm", p.name, now.files, p.warm.files)
			p.warm.files = now.files // reported once for each such growth
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err == nil && now.memory > p.warm.memory+memoryGrowth { // after an error it has ended, which is noticed elsewhere
		p.c.violate("memory", "%s has %d kB after %s, %d when it was warm", p.name, now.memory, time.Since(p.started).Round(time.Second), p.warm.memory)
		p.warm.memory = now.memory
	}
}

func (p *process) usage() (u usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) > 1 && (f[0] == "VmRSS:" || f[0] == "Threads:") {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return u, err
			}
			if f[0] == "Threads:" {
				u.threads = n
			} else {
				u.memory = n
			}
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	u.files = len(files)
	if u.memory == 0 {
		err = errors.Join(err, os.ErrProcessDone)
	}
	return u, err
}
