package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
	if _, err := exec.LookPath("strace"); err != nil {
		rig.Missing(t, "needs strace; make peers installs it")
	}
	if out, err := exec.Command("strace", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		rig.Missing(t, "needs to trace programs: "+string(out))
	}
	seen := filepath.Join(t.TempDir(), "strace")
	tracer := []string{"-D", "-f", "-qq", "-o", seen, "-e", "trace=" + call, "-e", "signal=none",
		"-e", "inject=" + call + ":error=" + errno + ":when=" + when, program.Path}
	p = launchProgram(t, exec.Command("strace", append(tracer, program.Command(args...).Args[1:]...)...))
	return p, func() bool {
		text, err := os.ReadFile(seen)
		return err == nil && strings.Contains(string(text), "(INJECTED)")
	}
}

// What memory or descriptors are short of for a moment passes: the control socket goes on answering.
func TestAcceptRefused(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "s")
	for _, errno := range []string{"ENOMEM", "ENOBUFS", "EMFILE", "EPERM"} {
		p := refused(t, "accept4", errno, "1", "run", "-c", write(t, moreSAs), "--control", socket)
		p.waitLog("msg=ready")
		for range 3 {
			ask(t, socket)
		}
		p.stop()
		if text := p.logged(); strings.Count(text, "cannot be taken now") > 1 || strings.Contains(text, "http:") {
			t.Errorf("%s: said\n%s", errno, text)
		}
	}
}

// A read that finds no memory takes no frame away, and ends nothing.
func TestReadRefused(t *testing.T) {
	rig.Require(t)
	remove, err := rig.QuietVeths(1500, "near")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	}()
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
