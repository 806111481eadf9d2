package dist

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

// boot makes the namespaces' root a fresh Debian, and systemd its first process.
const boot = `
R=$1; shift
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/systemd/cgroup.procs /sys/fs/cgroup/unified/cgroup.procs; do
	[ ! -e $procs ] || { mkdir -p ${procs%/*}/$1 && echo 0 >${procs%/*}/$1/cgroup.procs; }
done
exec unshare --kill-child --fork --pid --mount --net --uts --ipc --cgroup sh -ec '
R=$0
mount --make-rprivate /
mount --bind $R $R
mount -t proc proc $R/proc
mount -t sysfs -o ro sysfs $R/sys
mount -t tmpfs -o mode=755 tmpfs $R/dev
for n in null zero full random urandom tty; do touch $R/dev/$n; mount --bind /dev/$n $R/dev/$n; done
mkdir $R/dev/net $R/dev/shm $R/dev/pts
touch $R/dev/net/tun; mount --bind /dev/net/tun $R/dev/net/tun
mount -t tmpfs tmpfs $R/run
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mount -t cgroup2 cgroup2 $R/sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 tmpfs $R/sys/fs/cgroup
	mkdir $R/sys/fs/cgroup/systemd
	mount -t cgroup -o none,name=systemd cgroup $R/sys/fs/cgroup/systemd
fi
cd $R
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system
' $R`

// machine is a Debian with nothing but its essential packages and systemd, which runs.
type machine struct {
	t    *testing.T
	root string
	pid  string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root")}
	said, err := exec.Command("mmdebstrap", "--quiet", "--variant=essential", "--include=systemd",
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/locale/*", `--aptopt=Acquire::Languages "none"`,
		"bookworm", m.root).CombinedOutput()
	if err != nil {
		rig.Missing(t, fmt.Sprintf("mmdebstrap makes no Debian here: %v\n%s", err, said))
	}
	group := fmt.Sprintf("tapsec-test-%d", os.Getpid())
	cmd := exec.Command("sh", "-ec", boot, "boot", m.root, group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		program.Await(t, "the machine's control groups go with its processes", func() bool {
			above, _ := filepath.Glob("/sys/fs/cgroup/" + group)
			beneath, _ := filepath.Glob("/sys/fs/cgroup/*/" + group)
			left := append(above, beneath...)
			for _, dir := range left {
				_ = exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
			}
			return len(left) == 0
		})
	})
	program.Await(t, "systemd runs", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		m.pid = strings.TrimSpace(string(text))
		if m.pid == "" {
			return false
		}
		state, _ := m.command("systemctl is-system-running").CombinedOutput()
		return strings.Contains(string(state), "running") || strings.Contains(string(state), "degraded")
	})
	return m
}

// command is a shell's command on that machine.
func (m *machine) command(line string) *exec.Cmd {
	return exec.Command("timeout", "120", "nsenter", "-t", m.pid, "-m", "-p", "-n", "-u", "-i", "-C", "--root", "--wd",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", line)
}

// run runs one, and wants it to succeed.
func (m *machine) run(line string) string {
	m.t.Helper()
	said, err := m.command(line).CombinedOutput()
	if err != nil {
		journal, _ := m.command("journalctl --no-pager -n 40").CombinedOutput()
		m.t.Fatalf("%s: %v\n%s\n%s", line, err, said, journal)
	}
	return string(said)
}

// put writes a file on that machine.
func (m *machine) put(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, path), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}
