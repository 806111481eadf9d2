// Package strongswan has two strongSwan daemons talk to each other through tapsec:
// IKEv2 with rekeying, and ESP by kernel-libipsec, which is always in tunnel mode
// and in UDP. The keys are those that the receiving daemon logs.
package strongswan

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tapsec/rig"
)

// program is the path of the binary under test.
var program string

func TestMain(m *testing.M) { rig.Main(suite{m}) }

// suite is the tests with the binary built before them.
type suite struct{ *testing.M }

// Run builds and tests.
func (s suite) Run() int {
	if !rig.Inside() {
		return s.M.Run() // which skips
	}
	dir, err := os.MkdirTemp("", "tapsec-strongswan-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "tapsec")
		var said []byte
		said, err = exec.Command("go", "build", "-o", program, "tapsec").CombinedOutput()
		os.Stderr.Write(said)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build tapsec:", err)
		return 1
	}
	return s.M.Run()
}
