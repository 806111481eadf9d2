package test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/testkit"
)

// TestMirrorConfined: the program at work, confined, still asks the kernel for its SAs,
// here and in another namespace, when that flushes them and at a reload; it keeps the
// one capability that this needs. This machine's kernel may have no ESP, but it reserves
// SPIs.
func TestMirrorConfined(t *testing.T) {
	rig.Require(t)
	testkit.Programs(t, "ip")
	for flags, in := range map[string]string{"--mirror-xfrm": "", "--mirror-xfrm=gateway": "gateway", "--mirror-xfrm gateway": "gateway"} {
		t.Run(flags, func(t *testing.T) {
			ns := testkit.NewStack(t, "gateway")
			xfrm := func(args ...string) {
				t.Helper()
				cmd := exec.Command("ip", append([]string{"xfrm", "state"}, args...)...)
				run := cmd.Run
				if in != "" {
					run = func() error { return ns.Do(cmd.Run) }
				}
				if err := run(); err != nil {
					rig.Missing(t, "the kernel reserves no SPI: "+err.Error())
				}
			}
			socket := filepath.Join(sockets(t), "control")
			p := start(t, write(t, headSA), append(strings.Fields(flags), "--log-level", "debug", "--control", socket)...)
			if c := ask(t, socket).Confinement; !slices.Equal(c.Capabilities, []string{"cap_net_admin"}) || c.Seccomp != "filter" || !c.NoNewPrivs {
				t.Errorf("the program says of itself %+v", c)
			}
			xfrm(strings.Fields("allocspi src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel min 0x300 max 0x300")...)
			xfrm("flush")
			const compared = `msg="mirror: all is compared" sas=0`
			log := p.waitLog(compared)
			p.signal(unix.SIGHUP)
			log += p.waitLog(compared)
			p.stop()
			if log += p.logged(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
				t.Errorf("it says\n%s", log)
			}
		})
	}
}
