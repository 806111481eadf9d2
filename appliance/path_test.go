package appliance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/test/testkit"
	"tapsec/wire"
)

func TestMain(m *testing.M) { rig.Main(m) }

const patience = testkit.Patience

// site is a Linux stack behind an appliance, in a namespace of its own; the kernel's
// side of its wire is in the router's.
type site struct {
	t *testing.T
	*testkit.Stack
	*Appliance
	addr map[int]netip.Addr
}

// pair is what is the same on both sites but for the end.
type pair struct {
	wire, stack string
	mtu         int
	addr        map[int]string
}

var pairs = [2]pair{
	{"wire-a", "stack-a", 1500, map[int]string{4: "192.0.2.%d/24", 6: "2001:db8:a::%d/64"}},
	{"wire-b", "stack-b", 1300, map[int]string{4: "198.51.100.%d/24", 6: "2001:db8:b::%d/64"}},
}

// prefix is the address of the router (1) or the stack (2) on a wire.
func (p *pair) prefix(v, number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(p.addr[v], number))
}

// narrow puts up a site on either side of a router that is the machine's own kernel.
// The wire of the second site takes 1300 bytes, of which the first one knows nothing.
func narrow(t *testing.T, sas func(out bool) []*sa.SA) (a, b *site) {
	rig.Require(t)
	testkit.Programs(t, "ip", "ping", "sysctl")
	router := testkit.NewStack(t, "router")
	var sites [2]*site
	for i := range pairs {
		sites[i] = newSite(t, i, sas)
		sites[i].start(router, &pairs[i])
	}
	for _, way := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		if said, err := router.Run("sysctl -w " + way); err != nil {
			rig.Missing(t, "needs a router: "+said)
		}
	}
	return sites[0], sites[1]
}

// newSite opens a site. Its wire is in the namespace router.
func newSite(t *testing.T, i int, sas func(bool) []*sa.SA) *site {
	t.Helper()
	p := &pairs[i]
	s := &site{t: t, Stack: testkit.NewStack(t, p.stack), addr: map[int]netip.Addr{}}
	c := configs.Default()
	c.Wire = configs.Interface{Name: p.wire, Netns: "router", MTU: p.mtu}
	c.Host.Interface = configs.Interface{Name: p.stack, Netns: p.stack, MTU: 1500}
	for v := range p.addr {
		s.addr[v] = p.prefix(v, 2).Addr()
		c.Local = append(c.Local, s.addr[v])
	}
	c.Policy = []sa.Policy{{Action: sa.Protect}} // so the router's reports get no further than to be heeded
	c.SAs = append(sas(i == 0), sas(i != 0)...)
	for n, one := range c.SAs {
		one.Direction = sa.Outbound
		if n >= len(c.SAs)/2 {
			one.Direction = sa.Inbound
		}
	}
	var err error
	if s.Appliance, err = New(Options{Transport: true, Load: func() (*configs.Config, error) { return c, nil }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Appliance.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start has a site move frames, and gives stack and router their addresses.
func (s *site) start(router *testkit.Stack, p *pair) {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Appliance.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	<-s.Ready()
	for v := range p.addr {
		gateway := p.prefix(v, 1)
		router.Must(func() error { return netns.Address(p.wire, gateway) })
		s.Must(func() error {
			everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if v == 6 {
				everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			return errors.Join(netns.Address(p.stack, p.prefix(v, 2)), rig.Route(p.stack, everywhere, gateway.Addr()))
		})
	}
}

// ping pings until ping says what it should: the first one too long for a path is
// lost, as any.
func (s *site) ping(to netip.Addr, options, want string) {
	s.t.Helper()
	said := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if said, _ = s.Stack.Run("ping -n -c 1 -W 1 " + options + " " + to.String()); strings.Contains(said, want) {
			return
		}
	}
	s.t.Errorf("ping %s: no %q in:\n%s", options, want, said)
}

// between makes the SAs of a test, from the first site to the second or back.
func between(v int, mode sa.Mode, p sa.Protocol, suite string, change func(*sa.SA)) func(bool) []*sa.SA {
	return func(out bool) []*sa.SA {
		su, err := sa.ParseSuite(p, suite)
		if err != nil {
			panic(err)
		}
		a := &sa.SA{Name: "there", SPI: 0x1001, Protocol: p, Mode: mode, Suite: su, PadCheck: true, Window: sa.DefaultWindow,
			Src: pairs[0].prefix(v, 2).Addr(), Dst: pairs[1].prefix(v, 2).Addr()}
		if !out {
			a.Name, a.SPI, a.Src, a.Dst = "back", 0x1002, a.Dst, a.Src
		}
		a.EncryptionKey = sa.NewKey(bytes.Repeat([]byte{byte(a.SPI)}, su.EncryptionKeyLen()))
		a.IntegrityKey = sa.NewKey(bytes.Repeat([]byte{byte(a.SPI)}, su.IntegrityKeyLen()))
		change(a)
		return []*sa.SA{a}
	}
}

// Behind a router whose next link is narrower than the wire, Linux stacks learn what
// fits once it is sealed: TCP goes through, what must not be cut is told, what may be
// cut arrives (contract, The sending side).
func TestNarrowPath(t *testing.T) {
	plain := func(*sa.SA) {}
	const gcm = "aes128gcm16"
	for _, c := range []struct {
		name  string
		v     int // of the stacks
		sas   func(bool) []*sa.SA
		learn string
	}{
		{"transport", 4, between(4, sa.Transport, sa.ESP, gcm, plain), "1266"},
		{"transport", 6, between(6, sa.Transport, sa.ESP, gcm, plain), "1280"},
		{"tunnel of IPv4", 4, between(4, sa.Tunnel, sa.ESP, gcm, plain), "1246"},
		{"tunnel of IPv6", 4, between(6, sa.Tunnel, sa.ESP, gcm, plain), "1226"},
		{"tunnel of IPv4", 6, between(4, sa.Tunnel, sa.ESP, gcm, plain), "1280"},
		{"tunnel of IPv6", 6, between(6, sa.Tunnel, sa.ESP, gcm, plain), "1280"},
		{"AH", 4, between(4, sa.Tunnel, sa.AH, "sha256", plain), "1248"},
		{"ESP in UDP", 4, between(4, sa.Tunnel, sa.ESP, gcm, func(a *sa.SA) { a.Encap = true }), "1238"},
	} {
		t.Run(fmt.Sprintf("IPv%d, %s", c.v, c.name), func(t *testing.T) {
			a, b := narrow(t, c.sas)
			a.ping(b.addr[c.v], "-s 100", "1 received")
			a.Transfer(b.Stack, b.addr[c.v], 300_000)
			b.Transfer(a.Stack, a.addr[c.v], 300_000)
			if got := a.PathMTU(b.addr[c.v]); got != c.learn {
				t.Errorf("path MTU %q, want %s", got, c.learn)
			}
			if c.v == 4 {
				a.ping(b.addr[4], "-M do -s 1400", "mtu")
				a.ping(b.addr[4], "-M dont -s 1400", "1 received")
			}
			a.ping(b.addr[c.v], "-s 3000", "1 received")
			if n := a.host.sender.Counts(); n[outbound.Narrowed] != 1 || n[outbound.Replies] == 0 {
				t.Errorf("%d reports heeded, %d answers", n[outbound.Narrowed], n[outbound.Replies])
			}
			if n := b.host.sender.Counts()[outbound.Narrowed]; n != 0 {
				t.Errorf("%d reports on the way that is not narrow", n)
			}
		})
	}
}

// A report about what was sealed inside a tunnel comes back through the tunnel, from
// beyond its end. It is heeded where it comes out.
func TestReportInTunnel(t *testing.T) {
	rig.Require(t)
	inner := between(4, sa.Transport, sa.ESP, "aes128gcm16", func(a *sa.SA) { a.Name, a.SPI = "inner-"+a.Name, a.SPI+0x100 })
	tunnel := between(6, sa.Tunnel, sa.ESP, "aes128gcm16", func(*sa.SA) {})
	testkit.NewStack(t, "router")
	a := newSite(t, 0, func(out bool) []*sa.SA { return append(inner(out), tunnel(out)...) })
	in, out := a.inward(0), a.outward(0)
	through := func(stages []nic.Stage, frame []byte) [][]byte {
		frames := [][]byte{append(make([]byte, 0, 4096), frame...)}
		for _, s := range stages {
			frames = s.Batch(frames)
		}
		return frames
	}
	sealer := func(sas []*sa.SA) *outbound.Sealer {
		s, err := outbound.NewSealer(nil, sas...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	packet := forge.UDP(nil, netip.AddrPortFrom(pairs[0].prefix(4, 2).Addr(), 7), netip.AddrPortFrom(pairs[1].prefix(4, 2).Addr(), 7), make([]byte, 1300))
	packet[6] |= 0x40
	binary.BigEndian.PutUint16(packet[10:], 0)
	binary.BigEndian.PutUint16(packet[10:], wire.Checksum(0, packet[:20]))
	if sent := through(out, forge.AppendFrame(nil, packet)); len(sent) != 1 {
		t.Fatalf("%d frames sent", len(sent))
	}
	quoted, err1 := sealer(inner(true)).Seal(nil, packet)
	report, err2 := sealer(tunnel(false)).Seal(nil, tooBig(t, quoted[:28], 1200))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if got := through(in, forge.AppendFrame(nil, report)); len(got) != 1 {
		t.Errorf("the report does not come out of the tunnel: %+v", a.host.consumer.Summary())
	}
	sent := through(out, forge.AppendFrame(nil, packet))
	if n := a.host.sender.Counts(); len(sent) != 0 || n[outbound.Narrowed] != 1 || n[outbound.Replies] != 1 {
		t.Errorf("%d frames sent, %d reports heeded, %d answers", len(sent), n[outbound.Narrowed], n[outbound.Replies])
	}
}

// tooBig is the packet of a router that reports about one of IPv4.
func tooBig(t *testing.T, quoted []byte, mtu uint16) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolICMPv4, SrcIP: net.IP{203, 0, 113, 1}, DstIP: quoted[12:16]},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: mtu}, gopacket.Payload(quoted)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Somebody on the way who has not seen our packets changes nothing, and somebody who
// has makes none shorter than any path does.
func TestForgedOnTheWire(t *testing.T) {
	a, b := narrow(t, between(4, sa.Tunnel, sa.ESP, "aes128gcm16", func(*sa.SA) {}))
	a.ping(b.addr[4], "-s 100", "1 received")
	router, err := netns.Open("router")
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	report := func(spi, number uint32, mtu uint16) {
		quoted := make([]byte, 28)
		quoted[0], quoted[2], quoted[3], quoted[9] = 0x45, 5, 200, wire.ProtoESP
		copy(quoted[12:], a.addr[4].AsSlice())
		copy(quoted[16:], b.addr[4].AsSlice())
		binary.BigEndian.PutUint32(quoted[20:], spi)
		binary.BigEndian.PutUint32(quoted[24:], number)
		packet := tooBig(t, quoted, mtu)
		if err := router.Do(func() error {
			s, err := rig.OpenSocket(pairs[0].wire)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Send(forge.AppendFrame(nil, packet))
		}); err != nil {
			t.Fatal(err)
		}
	}
	until := func(r outbound.Reason, n uint64) {
		t.Helper()
		for deadline := time.Now().Add(patience); a.host.sender.Counts()[r] < n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d, expected %d", r, a.host.sender.Counts()[r], n)
			}
		}
	}
	report(0x1002, 1, 600)     // an SPI that does not go there
	report(0x1001, 50000, 600) // a number that was never sent
	report(0x1001, 1, 551)     // no path is as short
	until(outbound.Unbelieved, 3)
	a.ping(b.addr[4], "-M do -s 1200", "1 received")
	if n := a.host.sender.Counts(); n[outbound.Narrowed] != 0 || n[outbound.Replies] != 0 {
		t.Errorf("%d reports heeded, %d answers", n[outbound.Narrowed], n[outbound.Replies])
	}
	report(0x1001, 1, 600) // as a router would
	until(outbound.Narrowed, 1)
	a.ping(b.addr[4], "-M do -s 1200", "mtu = 546")
}
