package test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/wire"
)

const twoWays = `
sas:
  - {name: to-peer, spi: 0xd001, src: 192.0.2.2, dst: 192.0.2.1, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x202122232425262728292a2b2c2d2e2fa1a2a3a4}
  - {name: to-us, spi: 0xd002, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x303132333435363738393a3b3c3d3e3fa1a2a3a4}
`

const onlyToUs = `
sas:
  - {name: to-us, spi: 0xd002, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x303132333435363738393a3b3c3d3e3fa1a2a3a4}
`

// TestNothingInClear: what an outbound SA protects leaves sealed or not at all,
// whatever becomes of the stack's addresses, of its interface's name, and of the
// file (contract, Direction). Sequence numbers go on.
func TestNothingInClear(t *testing.T) {
	rig.Require(t)
	path := write(t, twoWays)
	p := launch(t, path, "--transport", "stack0")
	if said := p.waitLog("have no direction"); !strings.Contains(said, "to-peer") {
		t.Errorf("it is not said which SAs have no direction yet:\n%s", said)
	}
	p.waitLog("msg=ready")
	on := listen(t, "wire0")
	stack := listen(t, "stack0")
	frame := func() []byte {
		return framed(forge.UDP(nil, netip.MustParseAddrPort("192.0.2.2:7"), netip.MustParseAddrPort("192.0.2.1:9"), make([]byte, 100)))
	}
	number := uint32(0)
	sealed := func(when string) {
		t.Helper()
		stack.send(frame())
		got := on.next()
		if got[14+9] != wire.ProtoESP {
			t.Fatalf("%s: in clear:\n%x", when, got)
		}
		n := uint32(got[14+24])<<24 | uint32(got[14+25])<<16 | uint32(got[14+26])<<8 | uint32(got[14+27])
		if n != number+1 {
			t.Fatalf("%s: number %d after %d", when, n, number)
		}
		number = n
	}
	held := func(when string) {
		t.Helper()
		stack.send(frame())
		on.silent(100 * time.Millisecond)
		if t.Failed() {
			t.Fatal(when)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	held("without an address")
	must(netns.Address("stack0", netip.MustParsePrefix("192.0.2.2/24")))
	p.waitLog("local addresses")
	sealed("with an address")
	must(rig.Flush("stack0"))
	for range 15 { // for longer than a second, after which the program has looked for certain
		sealed("without an address again")
		time.Sleep(100 * time.Millisecond)
	}
	must(rig.Down("stack0"))
	must(rig.Rename("stack0", "other0"))
	must(netns.Up("other0"))
	must(netns.Ready("other0"))
	stack = listen(t, "other0") // the socket before tells once that the interface was down
	sealed("under another name")
	must(netns.Address("other0", netip.MustParsePrefix("192.0.2.2/24")))
	must(netns.Address("other0", netip.MustParsePrefix("192.0.2.7/24")))
	p.waitLog("192.0.2.7")
	sealed("with addresses again")

	rewrite(t, path, onlyToUs)
	p.signal(unix.SIGHUP)
	if said := p.waitLog("msg=reloaded"); !strings.Contains(said, "went=to-peer") {
		t.Errorf("the reload does not say which SA went:\n%s", said)
	}
	held("without the SA")
	rewrite(t, path, "queues: 1\n")
	p.signal(unix.SIGHUP)
	p.waitLog("msg=reloaded")
	held("with a file without SAs")
	rewrite(t, path, "policy: [{match: {dst: 192.0.2.1/32}, action: bypass}]\n")
	p.signal(unix.SIGHUP)
	p.waitLog("msg=reloaded")
	stack.send(frame())
	if got := on.next(); got[14+9] != wire.ProtoUDP {
		t.Errorf("a rule that says bypass does not let it out:\n%x", got)
	}
	p.stop()
}

const toPeer = `
sas:
  - {name: to-peer, spi: 0xd001, dst: 192.0.2.1, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x202122232425262728292a2b2c2d2e2fa1a2a3a4}
`

// Addresses that cannot be taken over, since a stack of SAs to seal with would become inbound, change nothing.
// They are said once, neither hold up the wire's MTU, nor are they remembered when they are gone.
func TestAddressesRefused(t *testing.T) {
	rig.Require(t)
	ours, theirs := netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("192.0.2.1/32")
	if err := errors.Join(netns.AddTAP("stack0", false), netns.Address("stack0", ours)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete("stack0") })
	p := start(t, write(t, toPeer), "--transport", "stack0", "--sa", "to-peer")
	on, stack := listen(t, "wire0"), listen(t, "stack0")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pieces := func() (n int) {
		t.Helper()
		for stack.send(framed(forge.UDP(nil, netip.MustParseAddrPort("192.0.2.2:7"), netip.MustParseAddrPort("192.0.2.1:9"), make([]byte, 1400)))); ; {
			got := on.next()
			if n++; got[14+9] != wire.ProtoESP {
				t.Fatalf("in clear:\n%x", got)
			}
			if more := got[20]&0x20 != 0; !more {
				return n
			}
		}
	}
	must(netns.Address("stack0", theirs))
	p.waitLog("are not taken over")
	if n := pieces(); n != 1 {
		t.Errorf("%d fragments", n)
	}
	must(netns.SetMTU("wire0", 1000))
	p.waitLog("the wire's MTU")
	if n := pieces(); n != 2 {
		t.Errorf("%d fragments with a smaller MTU", n)
	}
	must(rig.Flush("stack0"))
	must(netns.Address("stack0", netip.MustParsePrefix("192.0.2.7/24")))
	if said := p.waitLog("192.0.2.7"); strings.Contains(said, "are not taken over") {
		t.Errorf("said again:\n%s", said)
	}
	if n := pieces(); n != 2 {
		t.Errorf("%d fragments", n)
	}
	p.stop()
}
