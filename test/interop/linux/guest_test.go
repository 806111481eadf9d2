package linux

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/test/program"
)

// mtu of the wire: packets filled up and put into tunnels are no fragments then.
const mtu = 4000

// guest is user-mode Linux, and its console.
type guest struct {
	*program.Process
	console io.WriteCloser
}

// wired gives the guest the network device vec0, a packet socket on an interface.
func wired(on string) string {
	return fmt.Sprintf("vec0:transport=raw,ifname=%s,depth=128,mtu=%d", on, mtu)
}

// boot starts a guest with a script of this folder as its init, until that is over.
// The folder out is shared. What else the kernel is told may be for its environment.
func boot(t *testing.T, script, out string, more ...string) guest {
	t.Helper()
	program.Watch(t, ".")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	args := append(more, "mem=256M", "rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro",
		"LIVE=1", "OUT="+out, "MAC=02:00:00:00:00:02", "init="+filepath.Join(here, script), "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet")
	cmd := exec.Command("taskset", append([]string{"-c", processor(t), "linux.uml"}, args...)...)
	console, err := cmd.StdinPipe() // at the end of its input the console would hang up
	if err != nil {
		t.Fatal(err)
	}
	return guest{program.Launch(t, nil, cmd), console}
}

// processor is one of those that the test may have. The guest's kernel and its processes
// take turns at each system call: on one processor that takes half the time.
func processor(t *testing.T) string {
	t.Helper()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatal(err)
	}
	n := 0
	for !may.IsSet(n) {
		n++
	}
	return strconv.Itoa(n)
}
