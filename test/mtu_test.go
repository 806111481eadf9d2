package test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// addTAP makes a TAP that stays. Of a program that has ended the kernel may take the TAP of that name
// away a moment later.
func addTAP(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := netns.AddTAP(name, false)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func mtuOf(t *testing.T, name string) int {
	t.Helper()
	w, err := netns.NewWatch(name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	mtu, err := w.MTU()
	if err != nil {
		t.Fatal(err)
	}
	return mtu
}

// An MTU of which the configuration does not speak is left as it is, and so is one that is changed later.
// A TAP that is made for the host gets the wire's.
func TestMTULeftAlone(t *testing.T) {
	rig.Require(t)
	addTAP(t, "wire0")
	if err := netns.SetMTU("wire0", 9100); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete("wire0") })
	silent := write(t, moreSAs)
	p := start(t, silent)
	if wire, host := mtuOf(t, "wire0"), mtuOf(t, "host0"); wire != 9100 || host != 9100 {
		t.Errorf("the wire's MTU is %d, the host's %d", wire, host)
	}
	p.stop()
	if wire := mtuOf(t, "wire0"); wire != 9100 {
		t.Errorf("afterwards the wire's MTU is %d", wire)
	}
	addTAP(t, "host0")
	if err := netns.SetMTU("host0", 1400); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete("host0") })
	start(t, silent).stop()
	if host := mtuOf(t, "host0"); host != 1400 {
		t.Errorf("a host's TAP that was there has now %d", host)
	}
	start(t, write(t, "wire: {mtu: 2000}\n"+moreSAs)).stop()
	if wire, host := mtuOf(t, "wire0"), mtuOf(t, "host0"); wire != 2000 || host != 1400 {
		t.Errorf("configured, the wire's MTU is %d, the host's %d", wire, host)
	}
}

// What an interface carries since its MTU was raised arrives, from the very first frame, by each engine.
func TestMTURaised(t *testing.T) {
	rig.Require(t)
	for _, engine := range []string{"auto", "plain"} {
		t.Run(engine, func(t *testing.T) {
			p := start(t, write(t, moreSAs), "--engine", engine)
			if err := errors.Join(netns.SetMTU("wire0", 9100), netns.SetMTU("host0", 65521)); err != nil {
				t.Fatal(err)
			}
			wire, host := listen(t, "wire0"), listen(t, "host0")
			long := framed(plain(server, 1, 9000))
			wire.send(long)
			if got := host.next(); !bytes.HasPrefix(got, long) {
				t.Errorf("%d bytes of %d", len(got), len(long))
			}
			longest := append(bytes.Clone(long[:14]), make([]byte, 65521)...)
			host.send(longest)
			if got := wire.next(); !bytes.Equal(got, longest) {
				t.Errorf("%d bytes of %d", len(got), len(longest))
			}
			p.stop()
		})
	}
}

// Packets are sealed to fit the wire's MTU as it is now.
func TestMTUFollowed(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, "local: [192.0.2.2]\n"+twoWays), "--transport", "stack0")
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	long := framed(forge.UDP(nil, netip.MustParseAddrPort("192.0.2.2:7"), netip.MustParseAddrPort("192.0.2.1:9"), make([]byte, 4000)))
	pieces := func() (n int) {
		for stack.send(long); ; {
			got := wire.next()
			n++
			if more := got[20]&0x20 != 0; !more {
				return n
			}
		}
	}
	if err := netns.SetMTU("stack0", 9000); err != nil {
		t.Fatal(err)
	}
	if n := pieces(); n != 3 {
		t.Errorf("%d fragments", n)
	}
	if err := netns.SetMTU("wire0", 9000); err != nil {
		t.Fatal(err)
	}
	p.waitLog("the wire's MTU")
	if n := pieces(); n != 1 {
		t.Errorf("%d fragments with room for all of it", n)
	}
	if err := netns.SetMTU("wire0", 300); err != nil {
		t.Fatal(err)
	}
	p.waitLog("smaller than what packets are sealed for")
	p.waitLog("the wire's MTU")
	if err := netns.SetMTU("wire0", 2500); err != nil {
		t.Fatal(err)
	}
	p.waitLog("the wire's MTU")
	if n := pieces(); n != 2 {
		t.Errorf("%d fragments for 2500 bytes each", n)
	}
}
