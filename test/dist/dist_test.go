// Package dist makes what is given away (make dist), looks into it, and installs it on
// a fresh Debian.
package dist

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Plain(m) }

// need ends a test where the machine lacks programs, which Debian's packages have.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			rig.Missing(t, "needs "+name+"; make peers installs it")
		}
	}
}

// build has packaging/build write a version into a folder, in an environment.
func build(t *testing.T, dir, version string, env ...string) {
	t.Helper()
	program.Watch(t, "../../packaging")
	program.Watch(t, "../../packaging/debian")
	cmd := exec.Command("../../packaging/build", dir, version)
	cmd.Env = append(os.Environ(), env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
}

func deb(dir, version, arch string) string {
	return filepath.Join(dir, "tapsec_"+version+"-1_"+arch+".deb")
}

// TestDist: what make dist leaves is the same bytes wherever it is made, static, and
// lintian finds nothing wrong with the packages.
func TestDist(t *testing.T) {
	need(t, "dpkg-deb", "lintian", "git")
	one, two := t.TempDir(), t.TempDir()
	build(t, one, "v1.2.0-5-g0123456", "SOURCE_DATE_EPOCH=1780000000")
	build(t, two, "v1.2.0-5-g0123456", "SOURCE_DATE_EPOCH=1780000000", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "ARCHES="+runtime.GOARCH, "GOFLAGS=-p=1")
	sums, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(two, "SHA256SUMS"))
	for line := range bytes.Lines(again) {
		if !bytes.Contains(sums, line) {
			t.Errorf("made twice, and %s is not in\n%s", line, sums)
		}
	}
	if err != nil || bytes.Count(sums, []byte("\n")) != 4 || bytes.Count(again, []byte("\n")) != 2 {
		t.Errorf("%v, %s, %s", err, sums, again)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		f, err := elf.Open(filepath.Join(one, "tapsec-linux-"+arch))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Progs {
			if f.Machine != machine || p.Type == elf.PT_INTERP {
				t.Errorf("%s is for %s, and has a segment %s", arch, f.Machine, p.Type)
			}
		}
		f.Close()
		if said, err := exec.Command("lintian", "--allow-root", "--fail-on", "info", deb(one, "1.2.0+5.g0123456", arch)).CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("lintian: %v\n%s", err, said)
		}
	}
	t.Run("image", func(t *testing.T) { image(t, one) })
}

const site = `wire: {name: wire0}
host: {name: host0}
local: [192.0.2.2]
sas:
  - {name: site, spi: 0xc001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16,
     encryption_key: 0x000102030405060708090a0b0c0d0e0fa1a2a3a4}
`

// TestPackage installs the package on a fresh Debian, starts its unit, upgrades,
// removes and purges it. A state file stays as long as there are keys that it is about.
func TestPackage(t *testing.T) {
	need(t, "dpkg-deb", "mmdebstrap", "unshare", "nsenter", "git")
	if os.Getuid() != 0 {
		rig.Missing(t, "needs root for a machine of its own")
	}
	dir, arch := t.TempDir(), "ARCHES="+runtime.GOARCH
	build(t, dir, "v0.0.1", arch)
	build(t, dir, "v0.0.2", arch)
	m := newMachine(t)
	for _, version := range []string{"0.0.1", "0.0.2"} {
		text, err := os.ReadFile(deb(dir, version, runtime.GOARCH))
		if err != nil {
			t.Fatal(err)
		}
		m.put(version+".deb", string(text))
	}
	m.run("dpkg -i /0.0.1.deb && dpkg --verify tapsec")
	if said := m.run("tapsec version"); !strings.HasPrefix(said, "tapsec v0.0.1, ") {
		t.Errorf("installed: %s", said)
	}
	m.run("tapsec validate /usr/share/doc/tapsec/examples/example.yaml")
	m.run("cd /usr/share/doc/tapsec/examples && tapsec replay -c layers.yaml layers.pcapng")
	if said := m.run("tapsec doctor --json"); !strings.Contains(said, `"demo": true`) {
		t.Errorf("doctor:\n%s", said)
	}
	m.put("etc/tapsec/site.yaml", site)
	m.put("etc/tapsec/site.env", "FLAGS=\"--transport stack0\"\n")
	m.run("systemctl enable --now tapsec@site")
	if said := m.run("tapsec sa list --control /run/tapsec/site/control; systemctl status tapsec@site"); !strings.Contains(said, "0x0000c001") || !strings.Contains(said, "active (running)") {
		t.Errorf("the unit's program:\n%s", said)
	}
	m.run("test -e /sys/class/net/wire0 && systemctl reload tapsec@site && systemctl is-active tapsec@site")
	first := m.run("systemctl show -P MainPID tapsec@site")
	m.run("dpkg -i /0.0.2.deb && systemctl is-active tapsec@site")
	if second := m.run("systemctl show -P MainPID tapsec@site"); second == first || second == "0\n" {
		t.Errorf("upgraded: process %s before, %s after", first, second)
	}
	if exe := m.run("readlink /proc/$(systemctl show -P MainPID tapsec@site)/exe && tapsec --version"); !strings.Contains(exe, "/usr/bin/tapsec\ntapsec v0.0.2, ") {
		t.Errorf("upgraded to %s", exe)
	}
	m.run("dpkg -r tapsec && ! systemctl is-active tapsec@site && ! test -e /sys/class/net/wire0 && test -e /etc/tapsec/site.yaml")
	if said := m.run("dpkg -P tapsec && ls /var/lib/tapsec/site"); !strings.Contains(said, "state.json\n") || !strings.Contains(said, "stays") {
		t.Errorf("purged beside a configuration:\n%s", said)
	}
	m.run("dpkg -i /0.0.2.deb && rm /etc/tapsec/* && dpkg -P tapsec")
	m.run("! test -e /var/lib/tapsec && ! test -e /etc/tapsec && ! test -e /usr/bin/tapsec")
}
