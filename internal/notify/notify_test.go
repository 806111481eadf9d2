package notify

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A manager that does not listen is waited for a moment, and hears again once it does.
func TestDeafManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	told := make(chan struct{})
	go func() {
		for range 30 { // more than a queue holds
			s.Watchdog()
		}
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(30 * time.Second):
		t.Fatal("the program waits for its manager")
	}
	buffer := make([]byte, 64)
	for {
		manager.SetReadDeadline(time.Now().Add(patience))
		if _, err := manager.Read(buffer); err != nil {
			break
		}
	}
	s.Stopping()
	manager.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := manager.Read(buffer); err != nil || string(buffer[:n]) != "STOPPING=1" {
		t.Errorf("%s, %v", buffer[:n], err)
	}
}

// The watchdog hears of the program only where every worker has come round since.
func TestPulse(t *testing.T) {
	var p Pulse
	for i, step := range []struct {
		counts []uint64
		beats  bool
	}{
		{[]uint64{0, 0}, false}, // only looked
		{[]uint64{1, 1}, true},
		{[]uint64{1, 1}, false},
		{[]uint64{9, 1}, false}, // the second one hangs
		{[]uint64{10, 2}, true}, // and no longer does
		{[]uint64{11, 2}, false},
		{[]uint64{11, 3}, true}, // the first one has come round before
	} {
		if got := p.Beats(step.counts); got != step.beats {
			t.Errorf("step %d, %v: %v", i, step.counts, got)
		}
	}
}
