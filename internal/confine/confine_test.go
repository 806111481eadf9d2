package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"tapsec/internal/lab/rig"
	"testing"

	"golang.org/x/sys/unix"
)

// works is what the running appliance does.
var works = []string{"read the configuration", "read through a link", "read a new key file beside", "read the state", "replace the state",
	"lock the state", "answer a client", "remove the socket", "dial the other socket", "signal itself", "collect garbage", "wait"}

// TestConfined: after Apply the program does what its plan names and nothing else, on no thread is a
// capability left, and the kernel says so. The configuration is replaced meanwhile.
func TestConfined(t *testing.T) {
	for name, attributes := range map[string]*syscall.SysProcAttr{"as it is": {}, "root of a user namespace": userNamespace()} {
		t.Run(name, func(t *testing.T) {
			dir := lay(t)
			r := confined(t, dir, attributes)
			for what, err := range r.Did {
				if good := slices.Contains(works, what); good != (err == "") {
					t.Errorf("%s: %q, works %v", what, err, good)
				}
			}
			s := r.State
			if r.Applied != "" || len(s.Capabilities) != 0 || !s.NoNewPrivs || !s.Files || s.Seccomp != "filter" || s.Threads < 6 {
				t.Errorf("applied %q, state %+v", r.Applied, s)
			}
			if len(r.Before.Capabilities) > 0 && s.Bounding != 0 {
				t.Errorf("%d capabilities in the bounding set", s.Bounding)
			}
			if r.Before.Files || r.Before.Seccomp != "disabled" {
				t.Errorf("confined before: %+v", r.Before)
			}
		})
	}
}

// TestPoor: where descriptors are short, no signal may wait, or /proc does not show it, the program goes on as it
// is, and is not killed by whoever lacks one.
func TestPoor(t *testing.T) {
	for _, what := range []string{"poor", "no signals", "no proc"} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "CONFINE_TEST="+what)
		if what == "no proc" {
			cmd.SysProcAttr = userNamespace()
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNS | unix.CLONE_NEWPID
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, unix.EPERM) {
			rig.Missing(t, fmt.Sprintf("needs namespaces: %v", err))
		}
		if err != nil || !strings.HasSuffix(string(out), "goes on\n") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}

// TestCapabilityForAFile: root reads a file of somebody else by CAP_DAC_READ_SEARCH, which it therefore
// keeps, and writes beside one by CAP_DAC_OVERRIDE.
func TestCapabilityForAFile(t *testing.T) {
	if os.Geteuid() != 0 {
		rig.Missing(t, "needs root")
	}
	const somebody = 65534
	for _, test := range []struct{ of, keeps string }{{"etc/config", "cap_dac_read_search"}, {"lib", "cap_dac_override"}} {
		dir := lay(t)
		after := func(dir string) {
			if err := errors.Join(os.Chown(filepath.Join(dir, test.of), somebody, somebody), os.Chmod(filepath.Join(dir, test.of), 0o700)); err != nil {
				rig.Missing(t, fmt.Sprintf("needs root, and not of a user namespace: %v", err))
			}
		}
		after(dir)
		r := confinedAfter(t, dir, &syscall.SysProcAttr{}, after)
		if !slices.Equal(r.State.Capabilities, []string{test.keeps}) {
			t.Errorf("%s of somebody else: %v is left, want %s", test.of, r.State.Capabilities, test.keeps)
		}
		for _, what := range works {
			if err := r.Did[what]; err != "" {
				t.Errorf("%s of somebody else: %s: %s", test.of, what, err)
			}
		}
	}
}

func userNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
}

// lay makes the files of the program and of others.
func lay(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/config", "etc/new", "target/config", "lib/state", "elsewhere/file", "run/none"} {
		write(t, filepath.Join(dir, name), "old")
	}
	if err := errors.Join(os.Symlink("../target/config", filepath.Join(dir, "etc/link")), os.Symlink("/bin/true", filepath.Join(dir, "etc/true"))); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", filepath.Join(dir, "run/other"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func confined(t *testing.T, dir string, attributes *syscall.SysProcAttr) result {
	t.Helper()
	return confinedAfter(t, dir, attributes, func(string) {})
}

// confinedAfter runs the program, replaces its configuration and calls it once it is confined.
func confinedAfter(t *testing.T, dir string, attributes *syscall.SysProcAttr, replaced func(dir string)) (r result) {
	t.Helper()
	p := start(t, "program", dir, attributes)
	out := bufio.NewReader(p.out)
	if line, err := out.ReadString('\n'); err != nil || line != "confined\n" {
		t.Fatalf("said %q, %v: %s", line, err, p.errors.String())
	}
	config := filepath.Join(dir, "etc/config")
	write(t, config+".new", "new")
	if err := os.Rename(config+".new", config); err != nil {
		t.Fatal(err)
	}
	replaced(dir)
	client, err := net.Dial("unix", filepath.Join(dir, "run/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(p.in, "go on\n")
	if err := json.NewDecoder(out).Decode(&r); err != nil {
		t.Fatalf("%v: %s", err, p.errors.String())
	}
	if said, err := io.ReadAll(client); string(said) != "yes\n" {
		t.Errorf("the client heard %q, %v", said, err)
	}
	return r
}

// child is this binary as something else.
type child struct {
	cmd    *exec.Cmd
	in     io.Writer
	out    io.Reader
	errors strings.Builder
}

func start(t *testing.T, as, argument string, attributes *syscall.SysProcAttr) *child {
	t.Helper()
	p := &child{cmd: exec.Command("/proc/self/exe", argument)}
	p.cmd.Dir = t.TempDir() // for cores
	p.cmd.Env = append(os.Environ(), "CONFINE_TEST="+as)
	attributes.Pdeathsig = unix.SIGKILL
	p.cmd.SysProcAttr, p.cmd.Stderr = attributes, &p.errors
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.in, p.out = in, out
	return p
}
