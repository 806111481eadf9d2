package test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapsec/appliance"
	"tapsec/control"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/tap"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// clearly is a configuration with an SA that nothing of a transfer is for.
const clearly = "local: [192.0.2.2, 2001:db8::2]\n" + moreSAs

// joined has in far the stack on a veth's other end, in a namespace of its own, and stack that behind tapsec, which
// is attached to the veth near, or to what was made of it.
type joined struct {
	*process
	far, stack *testkit.Stack
	client     *control.Client
	began      string // what it said until it was ready
}

// in runs commands of ip, or of another program where the first word is one's, in a namespace.
func in(t *testing.T, ns *netns.Namespace, commands ...string) {
	t.Helper()
	for _, c := range commands {
		words := strings.Fields(c)
		if words[0] != "ethtool" {
			words = append([]string{"ip"}, words...)
		}
		if _, err := exec.LookPath(words[0]); err != nil {
			rig.Missing(t, "needs "+words[0])
		}
		run := func() error {
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", c, err, out)
			}
			return nil
		}
		if ns == nil {
			if err := run(); err != nil {
				t.Fatal(err)
			}
		} else if err := ns.Do(run); err != nil {
			t.Fatal(err)
		}
	}
}

// joinBy makes a veth, far in a namespace and near here, does here and there what is asked for, and
// attaches tapsec, with these flags, to an interface here.
func joinBy(t *testing.T, config string, here, there []string, name string, flags ...string) *joined {
	t.Helper()
	rig.Require(t)
	j := &joined{far: testkit.NewStack(t, "far"), stack: testkit.NewStack(t, "stack")}
	in(t, nil, "link add near type veth peer name far")
	t.Cleanup(func() { netns.Delete("near") })
	if err := j.far.Take("far"); err != nil {
		t.Fatal(err)
	}
	in(t, nil, append([]string{"link set near up"}, here...)...)
	in(t, j.far.Namespace, append(there, "link set far up", "addr add 192.0.2.1/24 dev far")...)
	if name != "near" {
		t.Cleanup(func() { netns.Delete(name) })
		in(t, nil, "link set "+name+" up")
	}
	socket := filepath.Join(t.TempDir(), "socket")
	j.process = launchProgram(t, program.Command(append([]string{"send", "-c", write(t, config), "--out", name, "--stack", "stack0",
		"--stack-netns", "stack", "--control", socket}, flags...)...))
	j.began = j.waitLog("msg=ready")
	in(t, j.stack.Namespace, "addr add 192.0.2.2/24 dev stack0")
	var err error
	if j.client, err = control.Dial(socket); err != nil {
		t.Fatal(err)
	}
	return j
}

// change changes an interface in a namespace.
func change(t *testing.T, ns *netns.Namespace, name string, do func(netlink.Link) error) {
	t.Helper()
	if err := ns.Do(func() error { return netns.Change(name, "change", do) }); err != nil {
		t.Fatal(err)
	}
}

// A stack's own offloads, its peer's, and what lies between them take no byte away, whatever kind of
// interface tapsec is attached to (docs/interfaces.md).
func TestAttachedCarriesTCP(t *testing.T) {
	for name, c := range map[string]struct {
		here, there []string
		attach      string
		only4, big  bool
	}{
		"as it comes":         {},
		"merged here":         {here: []string{"ethtool -K near gro on"}},
		"jumbo frames":        {here: []string{"link set near mtu 9100"}, there: []string{"link set far mtu 9100"}},
		"a small MTU":         {here: []string{"link set near mtu 500"}, there: []string{"link set far mtu 500"}, only4: true},
		"more than 64 KiB":    {big: true},
		"a macvlan":           {here: []string{"link add link near name mv type macvlan mode passthru"}, attach: "mv"},
		"a bridge":            {here: []string{"link add name br0 type bridge mcast_snooping 0", "link set near master br0"}, attach: "br0"},
		"a veth with no TSO":  {there: []string{"ethtool -K far tso off gso off"}},
		"a tunnel of packets": {there: []string{"link add tun type vxlan id 7 local 192.0.2.1 remote 192.0.2.2 dstport 4789"}},
	} {
		t.Run(name, func(t *testing.T) {
			attach := c.attach
			if attach == "" {
				attach = "near"
			}
			j := joinBy(t, clearly, c.here, c.there, attach)
			far, stack := []string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.2", "2001:db8::2"}
			if name == "a tunnel of packets" {
				in(t, j.far.Namespace, "addr add 198.51.100.1/24 dev tun", "addr add 2001:db8:1::1/64 dev tun nodad", "link set tun up")
				in(t, j.stack.Namespace, "link add tun type vxlan id 7 local 192.0.2.2 remote 192.0.2.1 dstport 4789",
					"addr add 198.51.100.2/24 dev tun", "addr add 2001:db8:1::2/64 dev tun nodad", "link set tun up")
				far, stack = []string{"198.51.100.1", "2001:db8:1::1"}, []string{"198.51.100.2", "2001:db8:1::2"}
			}
			if !c.only4 {
				in(t, j.far.Namespace, "addr add 2001:db8::1/64 dev far nodad")
				in(t, j.stack.Namespace, "addr add 2001:db8::2/64 dev stack0 nodad")
			}
			if c.big {
				change(t, j.far.Namespace, "far", func(link netlink.Link) error {
					return errors.Join(netlink.LinkSetGSOMaxSize(link, 300000), netlink.LinkSetGSOIPv4MaxSize(link, 300000))
				})
			}
			const size = 3 << 20
			for i := range far {
				if c.only4 && i > 0 {
					break
				}
				j.far.Transfer(j.stack, netip.MustParseAddr(stack[i]), size)
				j.stack.Transfer(j.far, netip.MustParseAddr(far[i]), size)
			}
			var moved nic.Summary
			if err := j.client.Get("moved", &moved); err != nil {
				t.Fatal(err)
			}
			for _, w := range []uint64{moved.ToHost.Oversize, moved.ToHost.Uncut, moved.ToHost.TooLong, moved.ToWire.Oversize, moved.ToWire.TooLong} {
				if w != 0 {
					t.Errorf("%+v", moved)
				}
			}
			if in := moved.ToHost.In; in < size/9000 {
				t.Errorf("%d frames for %d bytes: who brought them?", in, size)
			}
		})
	}
}

// By AF_XDP as well: a veth's own hook has the kernel cut what the other end would merge, and checksums
// that it leaves open are finished. In front of the stack, as on a bridge, nobody may merge. And by AF_XDP for
// sending alone.
func TestXDPCarriesTCP(t *testing.T) {
	if err := tap.CanRedirect(); err != nil {
		rig.Missing(t, err.Error())
	}
	for name, c := range map[string]struct {
		here, there []string
		attach, why string
		engine      string
	}{
		"veth, direct": {attach: "near", why: "past its queueing discipline", engine: "direct"},
		"veth":         {attach: "near", why: "in its driver", engine: "xdp"},
		"bridge":       {[]string{"link add name br0 type bridge mcast_snooping 0", "link set near master br0"}, []string{"ethtool -K far tso off gso off"}, "br0", "in front of the network stack", "xdp"},
	} {
		t.Run(name, func(t *testing.T) {
			j := joinBy(t, clearly, c.here, c.there, c.attach, "--engine", c.engine)
			in(t, j.far.Namespace, "addr add 2001:db8::1/64 dev far nodad")
			in(t, j.stack.Namespace, "addr add 2001:db8::2/64 dev stack0 nodad")
			if !strings.Contains(j.began, c.why) {
				t.Errorf("not %s: %s", c.why, j.began)
			}
			const size = 3 << 20
			for i, stack := range []string{"192.0.2.2", "2001:db8::2"} {
				j.far.Transfer(j.stack, netip.MustParseAddr(stack), size)
				j.stack.Transfer(j.far, netip.MustParseAddr([]string{"192.0.2.1", "2001:db8::1"}[i]), size)
			}
			var moved nic.Summary
			if err := j.client.Get("moved", &moved); err != nil {
				t.Fatal(err)
			}
			if moved.ToHost.Oversize+moved.ToHost.Uncut+moved.ToHost.TooLong != 0 || moved.ToHost.In < size/1500 {
				t.Errorf("%+v", moved)
			}
		})
	}
}

// Datagrams that a sender left to be cut are opened each by itself: between good ones one that is not is
// dropped alone.
func TestAttachedOpensMergedESP(t *testing.T) {
	const encap = `
local: [192.0.2.2]
policy:
  - {match: {dst: 192.0.2.2, protocol: 17}, action: protect, sa: natt}
sas:
  - {name: natt, spi: 0xe001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16, encap: {port: 4500},
     encryption_key: 0x202122232425262728292a2b2c2d2e2fa1a2a3a4}
`
	const count, bad = 20, 7
	j := joinBy(t, encap, nil, nil, "near")
	seals := sealer(t, sasOf(t, encap)["natt"])
	var datagrams []byte
	size := 0
	for i := range count {
		packet := sealed(t, seals, forge.UDP(nil, netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("192.0.2.2:9"), fmt.Appendf(nil, "datagram %09d", i)))
		if i == bad {
			packet = spoiled(packet)
		}
		size = len(packet) - 28 // without IP and UDP headers
		datagrams = append(datagrams, packet[28:]...)
	}
	var from, to *net.UDPConn
	udp := func(address string) *net.UDPAddr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)) }
	if err := errors.Join(j.stack.Do(func() (err error) {
		to, err = net.ListenUDP("udp4", udp("192.0.2.2:9"))
		return err
	}), j.far.Do(func() (err error) {
		from, err = net.DialUDP("udp4", udp("192.0.2.1:4500"), udp("192.0.2.2:4500"))
		return err
	})); err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	defer from.Close()
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Write(datagrams); err != nil {
		t.Fatal(err)
	}
	to.SetDeadline(time.Now().Add(patience))
	for i := range count {
		if i == bad {
			continue
		}
		got := make([]byte, 100)
		n, err := to.Read(got)
		if want := fmt.Sprintf("datagram %09d", i); err != nil || string(got[:n]) != want {
			t.Fatalf("%q, %v; want %q", got[:n], err, want)
		}
	}
	j.waitLog("reason=transport/icv sa=natt")
}

// An interface to which tapsec was attached is not left promiscuous, however tapsec ended.
func TestAttachedLeavesNothingBehind(t *testing.T) {
	j := joinBy(t, clearly, nil, nil, "near")
	promiscuous := func() (on bool) {
		if err := netns.Change("near", "look at", func(link netlink.Link) error {
			on = link.Attrs().Promisc != 0
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return on
	}
	if !promiscuous() {
		t.Error("it hears only what is for it")
	}
	j.signal(unix.SIGKILL)
	<-j.exited
	program.Await(t, "an interface as it was", func() bool { return !promiscuous() })
}

// Contract, The system: what the kernel drops, since its ring is full, is told while the program runs, by
// interface, and with what came makes what was sent.
func TestAttachedTellsWhatTheKernelDropped(t *testing.T) {
	const sent = 20000 // the ring holds half of them
	j := joinBy(t, clearly, nil, nil, "near")
	var far *rig.Socket
	if err := j.far.Do(func() (err error) {
		far, err = rig.OpenSocket("far")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	j.signal(unix.SIGSTOP)
	frame := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 46)...)
	for range sent {
		if err := far.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	j.signal(unix.SIGCONT)
	var status struct {
		KernelDrops []appliance.KernelDrops `json:"kernel_drops"`
	}
	program.Await(t, "all frames, as received or dropped", func() bool {
		var moved nic.Summary
		if err := errors.Join(j.client.Get("moved", &moved), j.client.Get("status", &status)); err != nil {
			t.Fatal(err)
		}
		return len(status.KernelDrops) == 2 && moved.ToHost.In+status.KernelDrops[0].Tx >= sent
	})
	d := status.KernelDrops[0]
	if d.Interface != "near" || d.Tx == 0 || d.Tx >= sent || status.KernelDrops[1].Tx != 0 {
		t.Errorf("%+v", status.KernelDrops)
	}
	all, err := j.client.Counters("")
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, c := range all {
		for _, s := range c.Samples {
			if c.Name == "tapsec_kernel_drops" && s.Labels["interface"] == "near" && s.Labels["queue"] == "tx" {
				counted = s.Value
			}
		}
	}
	if counted != float64(d.Tx) {
		t.Errorf("%v counted, of %d", counted, d.Tx)
	}
	j.waitLog("interface=near frames=")
}

// An attached interface that somebody moves into another namespace while frames flow is gone, and tapsec
// ends as where it is deleted (docs/interfaces.md).
func TestAttachedInterfaceMovesAway(t *testing.T) {
	j := joinBy(t, clearly, nil, nil, "near")
	j.far.Transfer(j.stack, netip.MustParseAddr("192.0.2.2"), 1<<16)
	if err := j.stack.Take("near"); err != nil {
		t.Fatal(err)
	}
	j.end(3)
	if said := j.logged(); !strings.Contains(said, "near: interface is gone") || !strings.Contains(said, "another network namespace") {
		t.Errorf("got %q", said)
	}
	if err := j.stack.Do(func() error {
		return netns.Change("near", "look at", func(link netlink.Link) error {
			if link.Attrs().Promisc != 0 {
				t.Error("it took being promiscuous along")
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
}
