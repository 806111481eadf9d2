package dist

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

// images are those of a test, in a store and a network of their own.
type images struct {
	*testing.T
	store []string
}

func newImages(t *testing.T) *images {
	t.Helper()
	need(t, "buildah", "unshare")
	if os.Getuid() != 0 {
		rig.Missing(t, "needs root for images of its own")
	}
	dir := t.TempDir()
	return &images{t, []string{"--net", "buildah", "--storage-driver", "vfs", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}}
}

// command is one of buildah's, whose containers have no runtime of their own.
func (i *images) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append(append(i.store, name), args...)...)
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot")
	return cmd
}

func (i *images) run(name string, args ...string) string {
	i.Helper()
	cmd := i.command(name, args...)
	var told strings.Builder
	cmd.Stderr = &told
	said, err := cmd.Output()
	if err != nil {
		i.Fatalf("buildah %s: %v\n%s%s", name, err, said, told.String())
	}
	return strings.TrimSpace(string(said))
}

// image makes of what make dist left an image for each machine, which judges a capture, and
// is a NIC where it has the tun device and CAP_NET_ADMIN.
func image(t *testing.T, dist string) {
	i := newImages(t)
	for _, arch := range []string{"arm64", "amd64"} {
		i.run("build", "-f", "../../packaging/Containerfile", "--platform", "linux/"+arch, "-t", arch, dist)
		if told := i.run("inspect", "--type", "image", "--format", "{{.OCIv1.Architecture}} {{.OCIv1.Config.Entrypoint}}", "localhost/"+arch); told != arch+" [/usr/bin/tapsec]" {
			t.Errorf("the image for %s is %s", arch, told)
		}
	}
	configs, err := filepath.Abs("../../configs")
	if err != nil {
		t.Fatal(err)
	}
	container := i.run("from", "--pull-never", "localhost/"+runtime.GOARCH)
	judged := i.run("run", "-v", configs+":/in:ro", container, "--", "/usr/bin/tapsec", "replay", "--summary-only", "-c", "/in/layers.yaml", "/in/layers.pcapng")
	if !strings.HasSuffix(judged, "10 frames: 5 good (4 of them in both portions), 4 failed, 1 left alone") {
		t.Errorf("in the image replay says\n%s", judged)
	}
	nic := program.Launch(t, nil, i.command("run", "--cap-add", "CAP_NET_ADMIN", "-v", "/dev/net/tun:/dev/net/tun", "-v", configs+":/in:ro",
		container, "--", "/usr/bin/tapsec", "run", "-c", "/in/minimal.yaml"))
	nic.Await("msg=ready", 1)
}
