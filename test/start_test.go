package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/program"
)

// While an interface does not come up, as one without its other end, the program answers, reloads and ends.
func TestNotUp(t *testing.T) {
	rig.Require(t)
	in(t, nil, "link add near type veth peer name far", "link set near up")
	t.Cleanup(func() { netns.Delete("near") })
	socket := filepath.Join(sockets(t), "s")
	p := launch(t, write(t, "wire: {name: near, attach: true}\n"+moreSAs), "--control", socket)
	said := func(text string) bool { return strings.Contains(p.logged(), text) }
	program.Await(t, "tapsec is confined", func() bool { return said("msg=confined") })
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Show("web"); err != nil && !said("does not come up") {
		t.Errorf("while it waits: %v", err)
	}
	p.signal(unix.SIGHUP)
	program.Await(t, "tapsec reloads", func() bool { return said("msg=reloaded") })
	late := said("does not come up") // on a machine that is slower than its patience
	p.signal(unix.SIGTERM)
	p.end(0)
	if said("msg=ready") && !late {
		t.Error("it waited for the interface")
	}
}

// SIGTERM ends the program with its summary, however often it comes: timeout(1) sends two.
func TestTermination(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, moreSAs))
	for p.cmd.Process.Signal(unix.SIGTERM) == nil {
	}
	if sum := p.end(0); !strings.Contains(sum, "ran for") {
		t.Errorf("the summary is %q", sum)
	}
}

// pipe is a named pipe in which a configuration waits to be read once, as a shell's <(...) has it.
func pipe(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		go os.WriteFile(path, []byte(text), 0)
	}
	return path
}

// A file that does not answer holds up neither the start's end nor, when it is read again, anything else.
func TestFileDoesNotAnswer(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "s")
	p := start(t, pipe(t, moreSAs), "--control", socket)
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.signal(unix.SIGHUP)
		if _, err := client.Show("web"); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Flush(); err != nil {
		t.Error(err)
	}
	p.stop()

	silent := pipe(t, "")
	p = launch(t, silent)
	program.Await(t, "tapsec waits for the file", func() bool {
		f, err := os.OpenFile(silent, os.O_WRONLY|unix.O_NONBLOCK, 0) // fails until somebody reads
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err == nil
	})
	p.signal(unix.SIGTERM)
	p.end(1)
	if text := p.logged(); !strings.Contains(text, "a file does not answer") {
		t.Errorf("said %s", text)
	}
}
