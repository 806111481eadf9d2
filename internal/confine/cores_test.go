package confine

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
)

// secretKey is in the memory of a program that has made it, and stands in no file.
func secretKey() []byte {
	sum := sha256.Sum256([]byte("a key"))
	return sum[:]
}

// secret is a program with a key, that ends as a program does that panics.
func secret(protected string) {
	debug.SetTraceback("crash")
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) // where it may
	if protected == "true" {
		fail(NoCores())
	}
	key := secretKey()
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	unix.Kill(os.Getpid(), unix.SIGABRT) // Go dies of it as of its own
	fmt.Println(key)
}

// TestNoKeyInCore: what a debugger of root's writes holds no key.
func TestNoKeyInCore(t *testing.T) {
	gcore, err := exec.LookPath("gcore")
	if err != nil {
		rig.Missing(t, "needs gcore, of Debian's gdb")
	}
	p := start(t, "secret", "true", &syscall.SysProcAttr{})
	if line, err := bufio.NewReader(p.out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v: %s", line, err, p.errors.String())
	}
	core := filepath.Join(t.TempDir(), "core")
	said, _ := exec.Command(gcore, "-o", core, strconv.Itoa(p.cmd.Process.Pid)).CombinedOutput()
	text, err := os.ReadFile(core + "." + strconv.Itoa(p.cmd.Process.Pid))
	if err != nil {
		rig.Missing(t, fmt.Sprintf("gcore may not look into processes here: %s", said))
	}
	if bytes.Contains(text, secretKey()) {
		t.Error("the key is in the core")
	}
}

// TestNoCore: the kernel writes none when the program dies.
func TestNoCore(t *testing.T) {
	for _, protected := range []bool{false, true} {
		p := start(t, "secret", strconv.FormatBool(protected), &syscall.SysProcAttr{})
		if _, err := bufio.NewReader(p.out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		io.WriteString(p.in, "die\n")
		p.cmd.Wait()
		dumped := p.cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
		if !protected && !dumped {
			rig.Missing(t, "no cores are written on this machine")
		}
		if protected && dumped {
			t.Error("a core was written")
		}
	}
}
