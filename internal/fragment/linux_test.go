package fragment

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/wire"
)

// between stands between two Linux stacks, ours and that of the namespace far.
// Both fragment what they send, and get what the other one sent put together:
//
//	near | va  vb | Buffer | vc  vd | far
//
// Their interfaces take frames of any length; what makes them fragment is the MTU
// of their routes.
type between struct {
	far  *netns.Namespace
	mu   sync.Mutex
	seen [2][NumResults]int // by direction, from near and from far
	done sync.WaitGroup
}

const routeMTU = 1400

// ends are the addresses of near and far.
var ends = []struct{ near, far netip.Prefix }{
	{netip.MustParsePrefix("192.0.2.1/30"), netip.MustParsePrefix("192.0.2.2/30")},
	{netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8:1::2/64")},
}

func command(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// stack readies one stack's interface, named v, whose other end has a socket.
func stack(v string, mine, theirs func(i int) netip.Prefix, peer string) error {
	mac, err := net.ParseMAC(peer)
	if err != nil {
		return err
	}
	err = netns.Up(v)
	for i := range ends {
		err = errors.Join(err, netns.Address(v, mine(i)), rig.Neighbour(v, theirs(i).Addr(), mac),
			command(fmt.Sprintf("route replace %s dev %s mtu lock %d", theirs(i).Addr(), v, routeMTU)), local(mine(i).Addr()))
	}
	return err
}

// local waits until the stack takes packets to an address. The kernel adds the
// route to an IPv6 address a moment after the address.
func local(a netip.Addr) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if out, _ := exec.Command("ip", "route", "get", a.String()).Output(); strings.HasPrefix(string(out), "local ") {
			return nil
		}
	}
	return fmt.Errorf("no local route to %s", a)
}

func openBetween(t *testing.T) *between {
	t.Helper()
	rig.Require(t)
	if _, err := exec.LookPath("ip"); err != nil {
		rig.Missing(t, "ip is missing: apt-get install iproute2")
	}
	far, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	near := func(i int) netip.Prefix { return ends[i].near }
	away := func(i int) netip.Prefix { return ends[i].far }
	const nearMAC, farMAC = "02:00:00:00:00:0a", "02:00:00:00:00:0d"
	err = errors.Join(
		command("link add va mtu 65535 address "+nearMAC+" type veth peer name vb mtu 65535"),
		command("link add vd mtu 65535 address "+farMAC+" type veth peer name vc mtu 65535"),
		far.Take("vd"), netns.Up("vb"), netns.Up("vc"),
		stack("va", near, away, farMAC),
		far.Do(func() error { return stack("vd", away, near, nearMAC) }),
		netns.Ready("va", "vb", "vc"), far.Do(func() error { return netns.Ready("vd") }))
	if err != nil {
		t.Fatal(err)
	}
	b := &between{far: far}
	var sockets [2]*rig.Socket
	for i, name := range []string{"vb", "vc"} {
		if sockets[i], err = rig.OpenSocket(name); err != nil {
			t.Fatal(err)
		}
	}
	b.done.Go(func() { b.pump(t, 0, sockets[0], sockets[1]) })
	b.done.Go(func() { b.pump(t, 1, sockets[1], sockets[0]) })
	t.Cleanup(func() {
		sockets[0].Close()
		sockets[1].Close()
		b.done.Wait()
		if err := errors.Join(netns.Delete("va"), netns.Delete("vc"), far.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pump puts together what comes in fragments, and lets nothing else through.
func (b *between) pump(t *testing.T, way int, from, to *rig.Socket) {
	buffer := New(Limits{})
	for {
		frame, err := from.Receive(time.Minute)
		if err != nil {
			return
		}
		etherType, l3, ok := wire.Ethernet(frame)
		version := map[uint16]uint8{wire.EtherIPv4: 4, wire.EtherIPv6: 6}[etherType]
		if !ok || version == 0 {
			continue
		}
		p, err := wire.ParseIP(frame, l3, len(frame), version)
		if err != nil || !p.Fragment {
			continue
		}
		whole, r := buffer.Add(frame, p, 0, time.Now().UnixNano())
		b.mu.Lock()
		b.seen[way][r]++
		b.mu.Unlock()
		if r != Whole {
			continue
		}
		if err := to.Send(whole); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("send %d bytes: %v", len(whole), err)
		}
		buffer.Release()
	}
}

// take returns the results seen since the last call, and forgets them.
func (b *between) take() (seen [2][NumResults]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen, b.seen = b.seen, seen
	return seen
}

// Datagrams that Linux fragments arrive at another Linux byte for byte as they were
// sent, and that one has nothing to reassemble.
func TestLinuxUDP(t *testing.T) {
	b := openBetween(t)
	for _, e := range ends {
		var listener net.PacketConn
		if err := b.far.Do(func() (err error) {
			listener, err = net.ListenPacket("udp", netip.AddrPortFrom(e.far.Addr(), 4444).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		conn, err := net.Dial("udp", netip.AddrPortFrom(e.far.Addr(), 4444).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i, size := range []int{1400, 3000, 9001, 65000} {
			b.take()
			sent := noise(uint64(i), size)
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			if err := listener.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, _, err := listener.ReadFrom(got)
			seen := b.take()
			if err != nil || !bytes.Equal(got[:n], sent) {
				t.Fatalf("%v: %d of %d bytes arrived, %v; results %v", e.far, n, size, err, seen)
			}
			if seen[0][Held] < size/routeMTU || seen[0][Whole] != 1 {
				t.Errorf("%v, %d bytes: results %v", e.far, size, seen)
			}
		}
	}
	if err := b.far.Do(func() error { return reassembledNothing() }); err != nil {
		t.Error(err)
	}
}

// reassembledNothing reads the kernel's own counts.
func reassembledNothing() error {
	v4, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return err
	}
	v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return err
	}
	lines := strings.Split(string(v4), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "ReasmReqds" && values[i] != "0" {
			return fmt.Errorf("the far stack got %s IPv4 fragments", values[i])
		}
	}
	for _, line := range strings.Split(string(v6), "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Ip6ReasmReqds" && f[1] != "0" {
			return fmt.Errorf("the far stack got %s IPv6 fragments", f[1])
		}
	}
	return nil
}

// ping looks at its own bytes: they go there and back in fragments.
func TestLinuxPing(t *testing.T) {
	if _, err := exec.LookPath("ping"); err != nil {
		rig.Missing(t, "ping is missing: apt-get install iputils-ping")
	}
	b := openBetween(t)
	for _, e := range ends {
		b.take()
		out, err := exec.Command("ping", "-n", "-c", "1", "-W", "60", "-s", "20000", e.far.Addr().String()).CombinedOutput()
		seen := b.take()
		if err != nil || strings.Contains(string(out), "wrong data") || seen[0][Whole] != 1 || seen[1][Whole] != 1 {
			t.Errorf("%v: %v; results %v\n%s", e.far, err, seen, out)
		}
	}
}

// The longest datagram there is makes a frame too long for the pipeline.
func TestLinuxTooLong(t *testing.T) {
	b := openBetween(t)
	conn, err := net.Dial("udp", "192.0.2.2:4444")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 65507)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b.mu.Lock()
		seen := b.seen[0]
		b.mu.Unlock()
		if seen[TooLong] == 1 && seen[Held] == 65515/1376 && seen[Whole] == 0 {
			return
		}
	}
	t.Errorf("results %v", b.take())
}
