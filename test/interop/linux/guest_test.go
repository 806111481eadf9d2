package linux

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tapsec/test/program"
)

// mtu of the wire: packets filled up and put into tunnels are no fragments then.
const mtu = 4000

// guest is user-mode Linux, and its console.
type guest struct {
	*program.Process
	console io.WriteCloser
}

// boot starts a guest with a script of this folder as its init, until that is over.
// Its network device vec0 is a packet socket on an interface. The folder out is
// shared.
func boot(t *testing.T, script, on, out string) guest {
	t.Helper()
	program.Watch(t, ".")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("linux.uml", "mem=256M", "rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro",
		"LIVE=1", "OUT="+out, "MAC=02:00:00:00:00:02", "init="+filepath.Join(here, script),
		fmt.Sprintf("vec0:transport=raw,ifname=%s,depth=128,mtu=%d", on, mtu), "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet")
	console, err := cmd.StdinPipe() // at the end of its input the console would hang up
	if err != nil {
		t.Fatal(err)
	}
	return guest{program.Launch(t, nil, cmd), console}
}
