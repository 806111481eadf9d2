// Package program is tapsec as a process of its own for the tests, and other
// programs beside it: started, listened to, ended and waited for.
package program

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/cli"
	"tapsec/internal/lab/rig"
)

// name is what the test's binary is called where it is to be tapsec.
const name = "tapsec"

// Path is where the program under test lies, once Main has run.
var Path string

// Main is a TestMain: it runs the tests in a rig, where one can be had, in which the
// kernel's own IPv6 chatter does not mix with the frames. Called by the name tapsec,
// the test's binary is the program instead: what the tests start is what they were
// built of, so that a test's cached answer ends with any change of the program. It
// does not return.
func Main(m *testing.M) {
	asProgram()
	rig.Main(suite{m})
}

// Plain is Main without a rig, for tests that need the machine's own network.
func Plain(m *testing.M) {
	asProgram()
	os.Exit(suite{m}.Run())
}

func asProgram() {
	if filepath.Base(os.Args[0]) == name {
		os.Exit(cli.Main())
	}
}

type suite struct{ *testing.M }

// Run is called inside the rig, if there is one.
func (s suite) Run() int {
	dir, err := named()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the program under test:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	Path = filepath.Join(dir, name)
	if signal.Ignored(unix.SIGHUP) { // nohup(1) keeps it from the tests, and from what they start if they did not take it
		signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	}
	if rig.Inside() { // where /proc cannot be written, tests overhear IPv6
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	}
	return s.M.Run()
}

// named gives the test's binary its other name, in a directory of its own: also for the
// program itself, which may start itself again.
func named() (dir string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "tapsec-test-"); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if os.Link(self, path) == nil {
		return dir, nil
	}
	text, err := os.ReadFile(self) // of another file system
	if err != nil {
		return dir, err
	}
	return dir, os.WriteFile(path, text, 0o700)
}
