package rig

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
	"tapsec/tap"
)

// guestRole makes the test binary the supervisor, a program or a guest of a standing rig.
const guestRole = "standing"

func stand(part string, args []string) {
	var err error
	switch part {
	case "supervise":
		err = Supervise(args[0])
	case "enter":
		err = ExecInside(args[0], args[1], args[3:])
	case "guest":
		var s *State
		if s, err = Find(args[0]); err == nil {
			err = s.Enter(args[1], args[2:], "enter")
		}
	case "hold":
		if err = holdTAP(); err != nil {
			break
		}
		fallthrough
	case "ready":
		fmt.Fprintln(os.Stderr, readyWord)
		time.Sleep(math.MaxInt64) // the runtime ends a program that waits for nothing
	case "fail":
		err = errors.New("tapsec: no luck today")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

// holdTAP attaches to host east's TAP for good.
func holdTAP() error {
	ns, err := netns.Open("east")
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		d, err := tap.Open(tap.Config{Name: "stack0"})
		if err == nil {
			err = d.Up()
		}
		return err
	})
}

// newHome gives the test a directory for its rigs, and plays the parts of those that it raises.
func newHome(t *testing.T) {
	Require(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv(roleVar, guestRole)
}

func plan(name string, programs ...string) *State {
	s := &State{Name: name, Hosts: []Host{
		{Name: "east", Interface: "stack0", MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")}},
		{Name: "middle"},
	}}
	for _, p := range programs {
		s.Programs = append(s.Programs, Program{Name: p, Args: []string{p}})
	}
	return s
}

// raise puts a rig up, and down again after the test.
func start(t *testing.T, name string, programs ...string) *State {
	t.Helper()
	s, err := tryStart(t.Context(), plan(name, programs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := TakeDown(name); err != nil && !errors.Is(err, ErrDown) {
			t.Error(err)
		}
	})
	return s
}

func tryStart(ctx context.Context, s *State) (*State, error) {
	lock, err := Acquire(s.Name)
	if err != nil {
		return nil, err
	}
	if err := lock.Start(ctx, s, "supervise", lock.Dir()); err != nil {
		return s, errors.Join(err, lock.Remove())
	}
	return s, lock.Release()
}

// guest is a command in a host, not started yet.
func guest(s *State, host string, command ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{"guest", s.Name, host}, command...)...)
}

// ended waits until a process has.
func ended(t *testing.T, p Process) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); p.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives", p.PID)
		}
	}
}

// gone checks that nothing of a rig is left but, perhaps, its home.
func gone(t *testing.T, s *State) {
	t.Helper()
	if left, err := s.processes(); err != nil || len(left) > 0 {
		t.Errorf("processes %v left, %v", left, err)
	}
	for _, p := range append(s.Programs, Program{Process: s.Supervisor}) {
		if p.Process.Alive() {
			t.Errorf("%s lives", p.Name)
		}
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
}

func TestProcess(t *testing.T) {
	self, err := ProcessOf(os.Getpid())
	if err != nil || !self.Alive() {
		t.Fatal(self, err)
	}
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Process{p.PID, p.Start - 1} // had the pid before
	if err := other.signal(unix.SIGKILL); err != nil || other.Alive() || !p.Alive() {
		t.Errorf("a later process of that pid was taken for the earlier: %v", err)
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	ended(t, p) // a zombie has ended
	cmd.Wait()
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestSeat(t *testing.T) {
	newHome(t)
	lock, err := Acquire("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire("one"); !errors.Is(err, errTaken) {
		t.Errorf("claimed twice: %v", err)
	}
	other, err := Acquire("two")
	if err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(lock.Dir(), "x")
	if err := errors.Join(os.WriteFile(leftover, nil, 0o600), lock.Release()); err != nil {
		t.Fatal(err)
	}
	if lock, err = Acquire("one"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an earlier rig's file is there: %v", err)
	}
	if err := errors.Join(lock.Remove(), other.Remove()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(home()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("home after the last rig: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", "a b", strings.Repeat("x", 33)} {
		if _, err := Acquire(name); err == nil || !strings.Contains(err.Error(), "letters") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := errors.Join(os.Mkdir(home(), 0o700), os.Chmod(home(), 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire("one"); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("a home that anybody may write: %v", err)
	}
}

// A rig as it should be: hosts with what was planned, programs, an exit code, and nothing afterwards.
func TestStanding(t *testing.T) {
	newHome(t)
	s := start(t, "one", "hold")
	if !s.Up() || !s.Programs[0].Process.Alive() || len(s.Spaces) != 3 {
		t.Errorf("%+v", s)
	}
	out, err := guest(s, "east", "sh", "-c", "hostname; ip -br addr; ip link show stack0").Output()
	if code(err) != 0 {
		t.Fatal(err)
	}
	for _, want := range []string{"east\n", "10.9.0.1/24 fd09::1/64 \n", "UP", "mtu 1400"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	cmd := guest(s, "middle", "sh", "-c", "read x; exit $x")
	cmd.Stdin = strings.NewReader("7\n")
	if got := code(cmd.Run()); got != 7 {
		t.Errorf("exit code %d, want 7", got)
	}
	if got := code(guest(s, "east", "no such command").Run()); got != 3 { // of this file's stand
		t.Errorf("exit code %d, want 3", got)
	}
	if err := s.Enter("west", nil); err == nil || !strings.Contains(err.Error(), "west") {
		t.Errorf("no such host: %v", err)
	}
	if err := TakeDown("one"); err != nil {
		t.Fatal(err)
	}
	gone(t, s)
	if err := TakeDown("one"); !errors.Is(err, ErrDown) {
		t.Errorf("down twice: %v", err)
	}
}

// What the supervisor's death leaves is guests and a directory; TakeDown finds both, and so does who
// puts the rig up again. It works once whatever was killed.
func TestSupervisorKilled(t *testing.T) {
	newHome(t)
	s := start(t, "one", "hold", "ready")
	cmd := guest(s, "east", "sh", "-c", "trap '' HUP TERM; sleep 100 & echo in; wait")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	out.Read(make([]byte, 3))
	if err := s.Supervisor.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, s.Supervisor)
	ended(t, s.Programs[0].Process)
	ended(t, s.Programs[1].Process)
	left, err := s.processes()
	if err != nil || len(left) != 2 { // shell and sleep
		t.Errorf("guests %v, %v", left, err)
	}
	if err := s.Enter("east", nil); !errors.Is(err, ErrDied) {
		t.Errorf("enter: %v", err)
	}
	anew := start(t, "one", "hold")
	for _, p := range left {
		if p.Alive() {
			t.Errorf("guest %v lives", p)
		}
	}
	if err := TakeDown("one"); err != nil {
		t.Error(err)
	}
	gone(t, anew)
}

// A program that ends is noted, and the others go on.
func TestProgramKilled(t *testing.T) {
	newHome(t)
	s := start(t, "one", "hold", "ready")
	if err := s.Programs[1].Process.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); s.Programs[1].Ended == ""; time.Sleep(time.Millisecond) {
		now, err := Find("one")
		if err != nil || time.Now().After(deadline) {
			t.Fatal(err, now)
		}
		s = now
	}
	if s.Programs[1].Ended != "signal: killed" || s.Programs[0].Ended != "" || !s.Programs[0].Process.Alive() || !s.Up() {
		t.Errorf("%+v", s.Programs)
	}
}

// A rig that cannot be put up says why, and leaves nothing.
func TestRaiseFails(t *testing.T) {
	newHome(t)
	s, err := tryStart(t.Context(), plan("one", "hold", "fail"))
	if err == nil || !strings.HasSuffix(err.Error(), "fail ended: exit status 3, no luck today") {
		t.Errorf("said %v", err)
	}
	gone(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	s, err = tryStart(ctx, plan("one", "never"))
	if err == nil || !strings.Contains(err.Error(), "interrupted") && !strings.Contains(err.Error(), "never ended") {
		t.Errorf("said %v", err)
	}
	gone(t, s)
	if all, err := All(); err != nil || len(all) > 0 {
		t.Errorf("left %v, %v", all, err)
	}
}

// Who deletes the directory ends the rig.
func TestDirectoryDeleted(t *testing.T) {
	newHome(t)
	s := start(t, "one", "hold")
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	ended(t, s.Supervisor)
	ended(t, s.Programs[0].Process)
}

// The kernel gives a namespace's number to another one later. Its processes are strangers, even where
// the number is a rig's.
func TestStrangersStay(t *testing.T) {
	newHome(t)
	start := func(env string) Process {
		cmd := exec.Command("sleep", "100")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		cmd.Env = append(os.Environ(), env)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		p, err := ProcessOf(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	stranger, ours := start("X=1"), start(idVar+"=me")
	pid := func(p Process) string { return strconv.Itoa(p.PID) }
	s := &State{ID: "me", Spaces: map[string]string{"east": space(pid(stranger), "net"), "middle": space(pid(ours), "net"),
		spaceMount: space(pid(stranger), "mnt")}}
	got, err := s.processes()
	if err != nil || !slices.Equal(got, []Process{ours}) {
		t.Errorf("found %v, %v; want %v alone", got, err, ours)
	}
	if got, err = (&State{ID: "me"}).processes(); err != nil || len(got) > 0 {
		t.Errorf("a rig without namespaces has processes %v, %v", got, err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	newHome(t)
	one, two := start(t, "one", "hold"), start(t, "two", "hold")
	if all, err := All(); err != nil || len(all) != 2 || all[0].Name != "one" || all[1].Name != "two" {
		t.Errorf("%v, %v", all, err)
	}
	if err := TakeDown("one"); err != nil {
		t.Fatal(err)
	}
	gone(t, one)
	if !two.Up() || !two.Programs[0].Process.Alive() {
		t.Error("the other rig went too")
	}
}

// What a directory held is still there once another one lies over it.
func TestReplace(t *testing.T) {
	Require(t)
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("kept"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := replace(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "sub", "file"))
	if err != nil || string(text) != "kept" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "netns"), 0o755); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "netns")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was made afterwards reached the directory beneath: %v", err)
	}
}
