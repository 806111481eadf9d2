package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/program"
)

// refused starts tapsec where some of each thread's system calls fail, which strace(1) sees to: a system
// call, its error, and which calls, each thread's counted by itself.
func refused(t *testing.T, call, errno, when string, args ...string) *process {
	t.Helper()
	p, some := refusing(t, call, errno, when, args...)
	t.Cleanup(func() {
		if !some() {
			t.Errorf("no call of %s was refused", call)
		}
	})
	return p
}

// refusing is refused where the calls come later, and some reports whether one has failed.
func refusing(t *testing.T, call, errno, when string, args ...string) (p *process, some func() bool) {
	t.Helper()
	requireTracer(t)
	seen := filepath.Join(t.TempDir(), "strace")
	tracer := []string{"-D", "-f", "-qq", "-o", seen, "-e", "trace=" + call, "-e", "signal=none",
		"-e", "inject=" + call + ":error=" + errno + ":when=" + when, program.Path}
	p = launchProgram(t, exec.Command("strace", append(tracer, program.Command(args...).Args[1:]...)...))
	return p, func() bool {
		text, err := os.ReadFile(seen)
		return err == nil && strings.Contains(string(text), "(INJECTED)")
	}
}

// requireTracer skips a test where strace(1) may not trace programs.
func requireTracer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		rig.Missing(t, "needs strace; make peers installs it")
	}
	if out, err := exec.Command("strace", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		rig.Missing(t, "needs to trace programs: "+string(out))
	}
}

// What memory or descriptors are short of for a moment passes: the control socket goes on answering.
func TestAcceptRefused(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "s")
	for _, errno := range []string{"ENOMEM", "ENOBUFS", "EMFILE", "EPERM"} {
		p := refused(t, "accept4", errno, "1", "run", "-c", write(t, moreSAs), "--control", socket)
		text := p.waitLog("msg=ready")
		for range 3 {
			ask(t, socket)
		}
		p.stop()
		if text += p.logged(); strings.Count(text, "cannot be accepted now") != 1 || strings.Contains(text, "http:") {
			t.Errorf("%s: said\n%s", errno, text)
		}
	}
}

// veth makes an interface to attach to, with its far end, for the rest of the test.
func veth(t *testing.T, name string, mtu int) {
	t.Helper()
	remove, err := rig.QuietVeths(mtu, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
}

// A read that finds no memory takes no frame away, and ends nothing.
func TestReadRefused(t *testing.T) {
	rig.Require(t)
	veth(t, "near", 1500)
	config := write(t, "wire: {name: near, attach: true}\n"+moreSAs)
	for engine, call := range map[string]string{"plain": "recvmsg", "ring": "/^p?poll$"} {
		for _, errno := range []string{"ENOMEM", "ENOBUFS"} {
			p := refused(t, call, errno, "1..5", "run", "-c", config, "--engine", engine)
			p.waitLog("msg=ready")
			wire, host := listen(t, rig.FarEnd("near")), listen(t, "host0")
			m := newMixer(t)
			for kind := range kinds {
				for range 10 {
					s := m.sample(kind, 100)
					wire.send(s.frame)
					host.check(s)
				}
			}
			p.stop()
		}
	}
}

// Nor does it end what judges copies.
func TestCopyRefused(t *testing.T) {
	rig.Require(t)
	veth(t, "near", 1500)
	for _, call := range []string{"recvmsg", "/^p?poll$"} {
		for _, errno := range []string{"ENOMEM", "ENOBUFS"} {
			p, some := refusing(t, call, errno, "3..7", "shadow", "near")
			p.waitLog("msg=ready")
			program.Await(t, "a call is refused", some)
			p.stop()
		}
	}
}

// Whatever of an engine the kernel refuses, the sentence names the interface and what to do.
func TestEngineRefused(t *testing.T) {
	rig.Require(t)
	veth(t, "near", 1500)
	config, ended := write(t, "wire: {name: near, attach: true}\n"+moreSAs), 0
	toDo := regexp.MustCompile(`tapsec: .*\b(near|host0)\b.*: (see what|allow more|choose|give)`)
	for _, c := range []struct {
		engine, call, errno string
		first, last         int
	}{
		{"xdp", "setsockopt", "ENOPROTOOPT", 1, 7}, {"direct", "setsockopt", "ENOPROTOOPT", 1, 3}, {"ring", "setsockopt", "ENOPROTOOPT", 1, 3},
		{"xdp", "io_uring_setup", "EPERM", 1, 3}, {"plain", "epoll_ctl", "ENOSPC", 3, 12}, // those before are Go's own
	} {
		for n := c.first; n <= c.last; n++ {
			p, _ := refusing(t, c.call, c.errno, strconv.Itoa(n), "run", "-c", config, "--engine", c.engine)
			if p.comesUp() {
				p.stop()
				continue
			}
			ended++
			p.end(1)
			if text := p.logged(); !toDo.MatchString(text) || strings.Contains(text, "deadline") {
				t.Errorf("with call %d of %s refused, engine %s says\n%s", n, c.call, c.engine, text)
			}
		}
	}
	if ended == 0 {
		t.Error("nothing that was refused was needed")
	}
}

// The end does not wait for answers of the kernel about the interfaces, of which none comes.
func TestAnswersMissing(t *testing.T) {
	rig.Require(t)
	p, some := refusing(t, "sendto", "EAGAIN", "20+", "run", "-c", write(t, moreSAs)) // none of a thread's first ones, with which it starts
	p.waitLog("msg=ready")
	program.Await(t, "an answer does not come", func() bool {
		if err := errors.Join(rig.Down("host0"), netns.Up("host0")); err != nil { // whereupon it asks
			t.Fatal(err)
		}
		return some()
	})
	p.stop()
}

// A process that may not ask what capabilities it has goes on, and says so.
func TestCapabilitiesRefused(t *testing.T) {
	rig.Require(t)
	p := refused(t, "capget", "EPERM", "1+", "run", "-c", write(t, moreSAs))
	p.waitLog("not confined in every respect")
	p.waitLog("msg=ready")
	p.stop()
}

// Where descriptors are short the sentence says so, and what helps, whatever it was that lacked one.
func TestFewDescriptors(t *testing.T) {
	rig.Require(t)
	config := write(t, moreSAs)
	for files := 8; ; files++ {
		p := launchProgram(t, exec.Command("sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(files), program.Path, "run", "-c", config))
		if p.comesUp() {
			p.stop()
			return
		}
		p.end(1)
		if text := p.logged(); !strings.Contains(text, "(ulimit -n)") || strings.Contains(text, "held by another program") {
			t.Errorf("with %d files it says\n%s", files, text)
		}
		absent(t, "wire0", "host0")
	}
}

// comesUp waits until frames flow, or the process has ended.
func (p *process) comesUp() bool {
	p.t.Helper()
	up, ended := false, false
	program.Await(p.t, "tapsec comes up, or ends", func() bool {
		select {
		case <-p.exited:
			ended = true
		default:
		}
		up = strings.Contains(p.logged(), "msg=ready")
		return up || ended
	})
	return up
}

// A running program needs no more threads than it has: it goes on where the kernel makes none any more,
// since somebody has used up all that there may be.
func TestNoMoreThreads(t *testing.T) {
	rig.Require(t)
	requireTracer(t)
	socket := filepath.Join(sockets(t), "s")
	p := start(t, write(t, moreSAs), "--control", socket)
	pid := strconv.Itoa(p.cmd.Process.Pid)
	tracer := program.Launch(t, nil, exec.Command("strace", "-f", "-qq", "-p", pid, "-o", os.DevNull,
		"-e", "trace=clone,clone3", "-e", "signal=none", "-e", "inject=clone,clone3:error=EAGAIN"))
	program.Await(t, "strace watches each thread", func() bool { return traced(t, pid) })
	for range 30 {
		p.signal(syscall.SIGHUP)
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() {
				if client, err := control.Dial(socket); err == nil {
					_ = client.Get("status", &confinement{}) // or there are too many
				}
			})
		}
		clients.Wait()
	}
	ask(t, socket)
	p.stop()
	tracer.Join()
}

// traced reports whether somebody traces each thread of a process.
func traced(t *testing.T, pid string) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of %s: %v, %v", pid, threads, err)
	}
	for _, path := range threads {
		if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), "\nTracerPid:\t0\n") {
			return false
		}
	}
	return true
}
