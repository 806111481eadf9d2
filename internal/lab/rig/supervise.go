package rig

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
)

// Descriptors that a supervisor starts with.
const (
	lockFD   = 3 // its Lock
	reportFD = 4 // a pipe to the process that waits for the rig
)

const ipv6Off = "/proc/sys/net/ipv6/conf/default/disable_ipv6" // for new interfaces, in the thread's namespace

const (
	readyWord   = "msg=ready" // in a program's log
	upWord      = "up"        // on the report pipe; anything else there is the sentence of an error
	readyWithin = time.Minute
	lookAgain   = time.Second // how often to check that the directory still exists
)

// Start puts a rig up in the locked directory and returns once all its programs are ready. The supervisor is
// this very program, run with args, which must call Supervise with that directory. On an error, or once ctx
// is done, only the locked directory is left. The error wraps ErrRefused if no namespaces can be made.
func (s *Lock) Start(ctx context.Context, plan *State, args ...string) error {
	plan.dir, plan.ID, plan.Since, plan.Rootless = s.dir, rand.Text(), time.Now().Round(time.Second), !privileged()
	if err := plan.save(); err != nil {
		return err
	}
	supervisor, report, err := s.launch(plan, args)
	if err != nil {
		return err
	}
	defer report.Close()
	defer context.AfterFunc(ctx, func() { supervisor.Process.Kill() })()
	said, err := io.ReadAll(report)
	if now, err := read(s.dir); err == nil {
		*plan = *now
	}
	if err == nil && ctx.Err() == nil && string(said) == upWord {
		return supervisor.Process.Release()
	}
	supervisor.Process.Kill()
	ended := supervisor.Wait()
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	case len(said) > 0:
		err = errors.New(string(said))
	default:
		err = fmt.Errorf("the supervisor died: %v", ended)
	}
	return errors.Join(err, plan.end())
}

// launch starts the supervisor, and returns the pipe on which it reports.
func (s *Lock) launch(plan *State, args []string) (cmd *exec.Cmd, report *os.File, err error) {
	log, err := os.OpenFile(plan.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	report, far, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer far.Close()
	cmd = exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/" // keeps none of the user's directories busy
	cmd.Env = append(os.Environ(), idVar+"="+plan.ID)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{s.lock, far}
	cmd.SysProcAttr = fresh(!plan.Rootless)
	cmd.SysProcAttr.Setsid = true // it gets neither the terminal's signals nor its hang-up
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(refusal(err), report.Close())
	}
	return cmd, report, nil
}

// Supervise is the whole life of a rig's first process, which Start started. It ends when it is killed, which
// ends everything else of the rig except guests, or when the rig's directory is gone. It passes SIGHUP to the
// programs.
//
//  1. Make the namespaces, and each host's TAP with its addresses.
//  2. Start the programs, each once the one before is ready.
//  3. Lengthen the queues of all TAPs, bring those up, and tell the process that waits.
//  4. Note which programs end.
func Supervise(dir string) error {
	runtime.LockOSThread() // the programs are killed when the thread that started them ends
	unix.CloseOnExec(lockFD)
	unix.CloseOnExec(reportFD)
	report := os.NewFile(reportFD, "report")
	s, err := read(dir)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	sup := supervisor{State: s, log: slog.New(slog.NewTextHandler(os.Stderr, nil)), ended: make(chan exit)}
	if err := sup.raise(); err != nil {
		_, _ = report.WriteString(err.Error()) // the log has it too
		return err
	}
	if _, err := report.WriteString(upWord); err != nil {
		return fmt.Errorf("nobody is waiting for this rig any more: %w", err)
	}
	report.Close()
	sup.log.Info("up", "rig", s.Name)
	return sup.watch(hup)
}

// supervisor is a standing rig seen from its first process.
type supervisor struct {
	*State
	log        *slog.Logger
	namespaces []*netns.Namespace // by host; nil for the supervisor's own
	ended      chan exit
}

// exit is the end of a program.
type exit struct {
	program int // in Programs
	how     string
}

func (s *supervisor) raise() (err error) {
	if s.Supervisor, err = ProcessOf(os.Getpid()); err != nil {
		return err
	}
	if err := Setup(); err != nil {
		return err
	}
	s.Spaces = map[string]string{spaceMount: space("self", "mnt")}
	for _, h := range s.Hosts {
		if err := s.addHost(h); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	if err := s.save(); err != nil { // before there is anything to end
		return err
	}
	for i := range s.Programs {
		if err := s.start(i); err != nil {
			return err
		}
	}
	for i, h := range s.Hosts {
		within := func(do func() error) error { return do() }
		if ns := s.namespaces[i]; ns != nil {
			within = ns.Do
		}
		if err := within(h.bringUp); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// addHost makes a host's namespace and its TAP, which stays down until a program has attached to it.
func (s *supervisor) addHost(h Host) error {
	if h.Interface == "" {
		// Frames only pass through here. If /proc cannot be written, this stack's own frames are a nuisance,
		// no more.
		_ = os.WriteFile(ipv6Off, []byte("1"), 0)
		s.namespaces = append(s.namespaces, nil)
		s.Spaces[h.Name] = space("self", "net")
		return nil
	}
	ns, err := netns.New(h.Name)
	if err != nil {
		return err
	}
	s.namespaces = append(s.namespaces, ns)
	return ns.Do(func() error {
		s.Spaces[h.Name] = space("thread-self", "net")
		_ = os.WriteFile(ipv6Off, []byte("0"), 0) // the kernel's default, where /proc cannot be written
		if _, err := QuietTAPs(false, h.Interface); err != nil {
			return err
		}
		for _, a := range h.Addresses {
			err := netns.Address(h.Interface, a)
			if a.Addr().Is6() && netns.NoIPv6(err) {
				s.log.Warn("this kernel has no IPv6", "host", h.Name, "without", a)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
}

// bringUp is run in the host's namespace, once programs hold its TAPs.
func (h Host) bringUp() error {
	if err := netns.LongQueues(); err != nil || h.Interface == "" {
		return err
	}
	if h.MTU > 0 {
		if err := netns.SetMTU(h.Interface, h.MTU); err != nil {
			return err
		}
	}
	return errors.Join(netns.Up(h.Interface), netns.Ready(h.Interface))
}

// start starts a program and waits until it is ready, or any of them has ended.
func (s *supervisor) start(i int) error {
	p := &s.Programs[i]
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", p.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return err
	}
	p.Process, _ = ProcessOf(cmd.Process.Pid) // none if it has ended, which is reported below
	if err := s.save(); err != nil {
		return err
	}
	ready := make(chan struct{})
	go func() {
		last := p.follow(out, ready)
		_ = cmd.Wait() // the state says the same
		how := cmd.ProcessState.String()
		if cmd.ProcessState.ExitCode() > 0 {
			how += ", " + strings.TrimPrefix(last, "tapsec: ")
		}
		s.ended <- exit{i, how}
	}()
	select {
	case <-ready:
		return nil
	case e := <-s.ended:
		return fmt.Errorf("%s ended: %s", s.Programs[e.program].Name, e.how)
	case <-time.After(readyWithin):
		return fmt.Errorf("%s is not ready within %s", p.Name, readyWithin)
	}
}

// follow copies a program's output to the log, line by line, until it ends. It closes ready once the program
// is ready, and returns the last line.
func (p *Program) follow(out io.Reader, ready chan<- struct{}) string {
	last := ""
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", p.Name, line)
			last = line
		}
		if ready != nil && strings.Contains(line, readyWord) {
			close(ready)
			ready = nil
		}
		if err != nil {
			return last
		}
	}
}

// watch notes the programs that end, and passes SIGHUP to those that live, for as long as the rig's directory
// exists.
func (s *supervisor) watch(hup <-chan os.Signal) error {
	look := time.NewTicker(lookAgain)
	for {
		select {
		case e := <-s.ended:
			p := &s.Programs[e.program]
			p.Ended = e.how
			s.log.Error("ended", "program", p.Name, "how", e.how)
			if err := s.save(); err != nil {
				s.log.Error("state", "err", err)
			}
		case <-hup:
			for _, p := range s.Programs {
				if err := p.Process.signal(unix.SIGHUP); err != nil {
					s.log.Error("SIGHUP", "program", p.Name, "err", err)
				}
			}
		case <-look.C:
			if _, err := os.Stat(s.dir); errors.Is(err, os.ErrNotExist) {
				return nil
			}
		}
	}
}
