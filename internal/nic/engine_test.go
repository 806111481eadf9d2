package nic

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
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
