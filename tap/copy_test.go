package tap

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// Copies are of what comes for this machine, whole, and of nothing else: not what it
// sends, and not what is for others, also where somebody else makes the interface
// promiscuous. That somebody copies does not.
func TestCopy(t *testing.T) {
	rig.Require(t)
	ip(t, "link add copied type veth peer name copyfar")
	t.Cleanup(func() { netns.Delete("copied") })
	if err := errors.Join(netns.Up("copied"), netns.Up("copyfar"), netns.Ready("copied", "copyfar")); err != nil {
		t.Fatal(err)
	}
	ours, err := net.InterfaceByName("copied")
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCopy("copied")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if details := ipSays(t, "-d link show copied"); !bytes.Contains(details, []byte("promiscuity 0")) {
		t.Errorf("copying is noticed: %s", details)
	}
	ip(t, "link set copied promisc on")
	far, own := testkit.Listen(t, "copyfar"), testkit.Listen(t, "copied")
	toUs := func(i, n int, tags ...string) []byte {
		f := frame(i, n)
		copy(f, ours.HardwareAddr)
		return tagged(f, tags...)
	}
	stranger := frame(9, 60)
	copy(stranger, "\x02\x99\x99\x99\x99\x99")
	sent := [][]byte{toUs(0, 60), toUs(1, 1500), toUs(2, 60, "\x81\x00\x60\x05"), toUs(3, 60)}
	for _, f := range sent {
		if err := errors.Join(own.Send(toUs(8, 60)), far.Send(stranger), far.Send(f)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(patience)
	for i := 0; i < len(sent); {
		got, err := c.Next()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("frame %d: %v", i, err)
		}
		if got == nil {
			if err := c.Wait(time.Second); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !bytes.Equal(got, sent[i]) {
			t.Fatalf("frame %d is %x, want %x", i, got[:40], sent[i][:40])
		}
		i++
	}
	if lost, err := c.Lost(); lost != 0 || err != nil {
		t.Errorf("%d were lost: %v", lost, err)
	}
	if err := netns.Delete("copied"); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil && time.Now().Before(deadline); {
		if _, err = c.Next(); err == nil {
			err = c.Wait(10 * time.Millisecond)
		}
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("a deleted interface: %v", err)
	}
}

func ipSays(t *testing.T, args string) []byte {
	t.Helper()
	said, err := exec.Command("ip", strings.Fields(args)...).Output()
	if err != nil {
		t.Fatalf("ip %s: %v", args, err)
	}
	return said
}
