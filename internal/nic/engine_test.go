package nic

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/tap"
)

// A NIC says by what it moves frames, and why: as asked for, and by the plain engine where there are too
// few descriptors for rings.
func TestEngine(t *testing.T) {
	rig.Require(t)
	wire, host := open(t, "wire", 2), open(t, "host", 2)
	for _, want := range []tap.Engine{tap.Plain, tap.Ring} {
		n, err := New(Config{Wire: wire, Host: host, Room: 100, Engine: want})
		if err != nil {
			t.Fatal(err)
		}
		if got, why := n.Engine(); got != want || why != "asked for" {
			t.Errorf("%v: %v, %s", want, got, why)
		}
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	few := unix.Rlimit{Cur: uint64(free + 8), Max: before.Max} // a ring takes six, the plain engine has its own
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Wire: wire, Host: host, Room: 100})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, why := n.Engine(); got != tap.Plain || !strings.Contains(why, "queue 1") || !strings.Contains(why, "too many open files") {
		t.Errorf("%v, %s", got, why)
	}
}

// A worker that cannot write any more releases what it holds, as one does that cannot read.
func TestFailedSendReleases(t *testing.T) {
	rig.Require(t)
	for _, e := range []tap.Engine{tap.Plain, tap.Ring, tap.Direct} {
		t.Run(e.String(), func(t *testing.T) {
			const warm, cycles = 3, 12
			for range warm {
				loseHost(t, e)
			}
			before := descriptors(t)
			for range cycles {
				loseHost(t, e)
			}
			if after := descriptors(t); after >= before+cycles {
				t.Errorf("%d descriptors, and %d after %d more runs", before, after, cycles)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// loseHost runs a NIC between attached interfaces whose host is deleted while frames come.
func loseHost(t *testing.T, e tap.Engine) {
	t.Helper()
	remove, err := rig.QuietVeths(1500, "lw", "lh")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	wire, err1 := tap.Attach("lw")
	host, err2 := tap.Attach("lh")
	peer, err3 := tap.Attach(rig.FarEnd("lw"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	defer host.Close()
	defer peer.Close()
	opened, ended := make(chan struct{}), make(chan error, 1)
	deleting := &hanging{came: make(chan struct{}, 1), goOn: make(chan struct{})}
	n, err := New(Config{Wire: wire, Host: host, Room: 2000, Engine: e, Opened: func() { close(opened) },
		Chain: func(int) []Stage { return []Stage{deleting} }})
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- n.Run(t.Context()) }()
	<-opened
	if err := peer.Inject(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	go func() { // the frame is on its way when its interface goes
		<-deleting.came
		if err := netns.Delete("lh"); err != nil {
			t.Error(err)
		}
		close(deleting.goOn)
	}()
	if err := <-ended; !errors.Is(err, tap.ErrGone) {
		t.Errorf("ended with %v", err)
	}
}
