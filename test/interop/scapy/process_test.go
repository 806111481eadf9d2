package scapy

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/rig"
	"tapsec/seal"
)

// patience is how long anything may take on a machine that has much else to do.
const patience = 60 * time.Second

// log collects what a program says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs tapsec until the test ends, and returns when frames flow. stop ends
// it and waits, earlier than that.
func start(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	said := &log{}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stdout, cmd.Stderr = io.Discard, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			_ = cmd.Process.Signal(unix.SIGTERM)
			kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			if err := <-ended; err != nil || t.Failed() {
				t.Errorf("%s: %v\n%s", cmd, err, said)
			}
		})
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); !strings.Contains(said.String(), "msg=ready"); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready:\n%s", cmd, said)
		}
	}
	return stop
}

// port is one interface from the kernel's side.
type port struct {
	t *testing.T
	*rig.Socket
}

func listen(t *testing.T, name string) port {
	t.Helper()
	s, err := rig.OpenSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return port{t, s}
}

// ours begins every frame of this test; anything else is the kernel's.
var ours = seal.AppendFrame(nil, []byte{0x45})[:12]

// exchange sends a frame and waits for what becomes of it at another port.
func exchange(from, to port, frame []byte) []byte {
	from.t.Helper()
	if err := from.Send(frame); err != nil {
		from.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		got, err := to.Receive(time.Until(deadline))
		if err != nil {
			to.t.Fatal(err)
		}
		if bytes.HasPrefix(got, ours) {
			return got
		}
	}
}
