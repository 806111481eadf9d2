package linux

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

// Run builds and tests. Recordings need no rig.
func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "tapsec-linux-")
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
	if rig.Inside() {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) // where /proc can be written; else the test overhears it
	}
	return s.M.Run()
}
