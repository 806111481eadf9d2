package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// manager is a service manager, as far as sd_notify(3) knows one.
type manager struct {
	t *testing.T
	*net.UnixConn
}

func manage(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(sockets(t), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{t, c}
}

// next is the next message that is not of the watchdog.
func (m manager) next() string {
	m.t.Helper()
	for {
		if text := m.any(); text != "WATCHDOG=1" {
			return text
		}
	}
}

func (m manager) any() string {
	m.t.Helper()
	m.SetReadDeadline(time.Now().Add(patience))
	text := make([]byte, 4096)
	n, err := m.Read(text)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text[:n])
}

// TestNotify: a service manager hears of the program what sd_notify(3) and
// systemd.service(5), Type=notify-reload, want to be told.
func TestNotify(t *testing.T) {
	rig.Require(t)
	m := manage(t)
	p := start(t, write(t, headSA))
	if got := m.next(); got != "READY=1" {
		t.Errorf("at start said %q", got)
	}
	for range 2 {
		if got := m.any(); got != "WATCHDOG=1" {
			t.Errorf("while it works said %q", got)
		}
	}
	var before unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	p.signal(unix.SIGHUP)
	lines := strings.Split(m.next(), "\n")
	if len(lines) != 2 || lines[0] != "RELOADING=1" || !strings.HasPrefix(lines[1], "MONOTONIC_USEC=") {
		t.Errorf("for a reload said %q", lines)
	} else if at, err := time.ParseDuration(strings.TrimPrefix(lines[1], "MONOTONIC_USEC=") + "us"); err != nil || at < time.Duration(before.Nano())-time.Microsecond || at > time.Duration(before.Nano())+patience {
		t.Errorf("reloading at %v, after %v", at, time.Duration(before.Nano()))
	}
	if got := m.next(); got != "READY=1" {
		t.Errorf("after the reload said %q", got)
	}
	p.stop()
	if got := m.next(); got != "STOPPING=1" {
		t.Errorf("at the end said %q", got)
	}
}

// TestNotifyFailure: a program that ends by itself says so to its manager, too.
func TestNotifyFailure(t *testing.T) {
	rig.Require(t)
	m := manage(t)
	p := start(t, write(t, headSA))
	if err := netns.Delete("wire0"); err != nil {
		t.Fatal(err)
	}
	p.end(3)
	if got := m.next(); got != "READY=1" {
		t.Errorf("at start said %q", got)
	}
	if got := m.next(); got != "STOPPING=1" {
		t.Errorf("at the end said %q", got)
	}
}

// TestNotifyNobody: a manager's socket that is not there is said at once.
func TestNotifyNobody(t *testing.T) {
	rig.Require(t)
	m := manage(t)
	os.Remove(m.LocalAddr().String())
	p := launch(t, write(t, headSA))
	p.end(1)
	if said := p.logged(); !strings.Contains(said, "NOTIFY_SOCKET") || !strings.Contains(said, "unset it") {
		t.Error(said)
	}
}
