package rig

import (
	"fmt"
	"os"
)

// requiredVar set to "required" makes a test fail that would be skipped for want of a rig.
const requiredVar = "TAPSEC_PEERS"

// Main runs a package's tests inside a rig: TestMain calls it with its *testing.M. Where no rig can
// be had the tests run all the same, and those that call Require skip or fail. It does not return.
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

// Require ends a test that is not inside a rig, or has no tun device in it: skipped with the reason,
// failed where the environment says TAPSEC_PEERS=required.
func Require(t interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}) {
	t.Helper()
	missing := ""
	if !Inside() {
		missing = ErrRefused.Error()
	} else if tun := tunDevice(); !tun.Met {
		missing = tun.Detail + " " + tun.Remedy
	}
	switch {
	case missing == "":
	case os.Getenv(requiredVar) == "required":
		t.Fatalf("needs a rig: %s", missing)
	default:
		t.Skipf("needs a rig: %s", missing)
	}
}
