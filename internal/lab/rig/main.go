package rig

import (
	"errors"
	"fmt"
	"os"
)

// requiredVar set to "required" makes a test fail that would be skipped for want of a rig.
const requiredVar = "TAPSEC_PEERS"

// Main runs a package's tests inside a rig: TestMain calls it with its *testing.M. If no rig can be made the
// tests run all the same, and those that call Require skip or fail. It does not return.
func Main(tests interface{ Run() int }) {
	if Inside() {
		if err := Setup(); err != nil {
			fmt.Fprintln(os.Stderr, "rig:", err)
			os.Exit(1)
		}
		os.Exit(tests.Run())
	}
	code, err := Reexec(os.Args[1:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		code = tests.Run()
	}
	os.Exit(code)
}

// Test is the part of a *testing.T or *testing.B that ends it.
type Test interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Require ends a test that is not inside a rig, or has no tun device in it, as Missing does.
func Require(t Test) {
	t.Helper()
	missing := ErrRefused
	if Inside() {
		missing = NeedsTUN()
	}
	if missing != nil {
		Missing(t, "needs a rig: "+missing.Error())
	}
}

// Own runs a test by itself in a rig of its own, and reports whether this is that run. If not, the test is
// done. It is for tests that use the same interface names as others.
func Own(t interface {
	Test
	Name() string
}) bool {
	t.Helper()
	if Inside() {
		return true
	}
	code, err := Reexec("-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	switch {
	case errors.Is(err, ErrRefused):
		Missing(t, err.Error())
	case err != nil || code != 0:
		t.Fatalf("in a rig: exit code %d, %v", code, err)
	}
	return false
}

// Missing ends a test that lacks something of the machine, a rig or a peer: it is skipped with the reason, or
// fails if the environment says TAPSEC_PEERS=required.
func Missing(t Test, what string) {
	t.Helper()
	if PeersRequired() {
		t.Fatalf("%s", what)
	}
	t.Skipf("SKIPPED: %s", what)
}

// PeersRequired reports whether a test that lacks something is to fail.
func PeersRequired() bool { return os.Getenv(requiredVar) == "required" }
