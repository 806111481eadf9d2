// Package program is tapsec as a process of its own for the tests, and other
// programs beside it: built once, started, listened to, ended and waited for.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tapsec/internal/lab/rig"
)

// Path is where the binary under test lies, once Main has built it.
var Path string

// Main is a TestMain: it builds tapsec and runs the tests in a rig, where one can be
// had, in which the kernel's own IPv6 chatter does not mix with the frames. It does
// not return.
func Main(m *testing.M) { rig.Main(suite{m}) }

type suite struct{ *testing.M }

// Run is called inside the rig, or outside if there is none.
func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "tapsec-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		Path = filepath.Join(dir, "tapsec")
		var said []byte
		said, err = exec.Command("go", "build", "-o", Path, "tapsec").CombinedOutput()
		os.Stderr.Write(said)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build tapsec:", err)
		return 1
	}
	if rig.Inside() { // where /proc cannot be written, tests overhear IPv6
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	}
	return s.M.Run()
}
