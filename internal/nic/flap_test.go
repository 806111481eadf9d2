package nic

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/tap"
	"tapsec/test/testkit"
)

// flapsVar says how often an interface goes down and up in each case of TestFlaps, which else is a
// thousand times, or on a busy machine as often as flapsLimit allows.
const (
	flapsVar   = "TAPSEC_FLAPS"
	flapsLimit = 2 * time.Second
)

// Contract, The system: whatever an interface does while frames are written to it, and whatever the kernel answers
// then, the NIC goes on and counts each frame once.
func TestFlaps(t *testing.T) { engines(t, testFlaps) }

func testFlaps(t *testing.T) {
	flaps, limit := 1000, flapsLimit
	if more, err := strconv.Atoi(os.Getenv(flapsVar)); err == nil {
		flaps, limit = more, time.Hour
	}
	for name, c := range map[string]struct {
		flapped  string
		attached bool
	}{"host": {flapped: "host"}, "wire": {flapped: "wire"}, "attached wire": {"wire", true}} {
		t.Run(name, func(t *testing.T) {
			rig.Require(t)
			host, wire := open(t, "host", 1), (*tap.Device)(nil)
			far := "wire"
			if c.attached {
				wire, far = attach(t, "wire"), "wire-far"
			} else {
				wire = open(t, "wire", 1)
			}
			r := join(t, wire, host, nil)
			stop := blast(t, "host", far)
			towards := func(name string) tap.Tally {
				if name == "host" {
					return r.Summary().ToHost
				}
				return r.Summary().ToWire
			}
			began := time.Now()
			for i := 0; i < flaps && time.Since(began) < limit || towards(c.flapped).HostDown == 0 && len(r.ended) == 0; i++ {
				if err := errors.Join(rig.Down(c.flapped), netns.Up(c.flapped)); err != nil {
					t.Fatal(err)
				}
			}
			for (towards("host").Out == 0 || towards("wire").Out == 0) && len(r.ended) == 0 {
				time.Sleep(time.Millisecond)
			}
			stop()
			r.stop(t)
			conserved(t, "to host", towards("host"))
			conserved(t, "to wire", towards("wire"))
			for _, name := range []string{"host", "wire"} {
				if c.attached && name == "wire" {
					continue // what it sent while its link was coming up, the kernel lost without a word
				}
				if took, out := took(t, name), towards(name).Out; took != out {
					t.Errorf("%s took %d frames, the NIC wrote %d", name, took, out)
				}
			}
		})
	}
}

// took is how many frames a TAP has taken from its program.
func took(t *testing.T, name string) uint64 {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.RxPackets
}

// blast sends frames out of interfaces as fast as they take them, whether they are up or not, until the
// function returned is called.
func blast(t *testing.T, names ...string) (stop func()) {
	t.Helper()
	var stopped atomic.Bool
	var running sync.WaitGroup
	for _, name := range names {
		s := testkit.Listen(t, name)
		running.Go(func() {
			for number := 0; !stopped.Load(); number = (number + 1) % 64 {
				s.Send(numbered(0, number)) // fails while the interface is down
			}
		})
	}
	return func() {
		stopped.Store(true)
		running.Wait()
	}
}
