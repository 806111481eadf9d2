package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/fragment"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/test/testkit"
	"tapsec/wire"
)

// host is a Linux stack in a namespace of its own, behind a TAP.
type host struct {
	t *testing.T
	*testkit.Stack
	device *tap.Device
	sender *Sender
}

func newHost(t *testing.T, name string, mtu, place int) *host {
	t.Helper()
	h := &host{t: t, Stack: testkit.NewStack(t, "")}
	h.Must(func() (err error) {
		h.device, err = tap.Open(tap.Config{Name: name, MTU: mtu})
		return err
	})
	t.Cleanup(func() { h.device.Close() })
	h.Must(func() error {
		return errors.Join(netns.Up(name), netns.Ready(name),
			netns.Address(name, netip.PrefixFrom(hosts[4][place], 24)), netns.Address(name, netip.PrefixFrom(hosts[6][place], 64)))
	})
	return h
}

// seen counts what is on the wire between two hosts.
type seen struct {
	longest, fragments, clear int
}

func (w *seen) Batch(frames [][]byte) [][]byte {
	for _, f := range frames {
		_, l3, _ := wire.Ethernet(f)
		p, ok := wire.Addresses(f, l3)
		if !ok || isLink(f, &p) {
			continue
		}
		w.longest = max(w.longest, len(f)-l3)
		switch {
		case p.Fragment:
			w.fragments++
		case p.Proto != wire.ProtoESP && p.Proto != wire.ProtoAH && p.Proto != wire.ProtoUDP:
			w.clear++
		}
	}
	return frames
}

// network is a pair of hosts with a wire between them, whose MTU is 1500.
type network struct {
	a, b *host
	wire seen // from a to b; to be read after stop
	stop func()
}

// connect joins two hosts by the SAs from a to b, and their mirror image. mtu is
// what the stacks believe in. What is put in front of the Senders sees the
// stacks' frames as they are.
func connect(t *testing.T, mtu int, front func() nic.Stage, sas ...*sa.SA) *network {
	rig.Require(t)
	testkit.Programs(t, "ip", "ping", "sysctl")
	n := &network{a: newHost(t, "a0", mtu, 0), b: newHost(t, "b0", mtu, 1)}
	way := func(h *host, w *seen, sas []*sa.SA) nic.Chain {
		h.sender = newSender(t, Config{SAs: sas, Reply: h.device.Inject})
		stages := []nic.Stage{h.sender, w, reassembler(), bare{receiver(t, sas...)}}
		if front != nil {
			stages = append([]nic.Stage{front()}, stages...)
		}
		return func(int) []nic.Stage { return stages }
	}
	moved, err := nic.New(nic.Config{
		Host: n.a.device, Wire: n.b.device, Room: mtu + 18, Tail: status.Tailroom,
		Outward: way(n.a, &n.wire, sas), Chain: way(n.b, &seen{}, mirrored(sas)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- moved.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// reassembler is what must stand in front of a Sender whose SAs are in transport
// mode, if the fragments of its stack are to go through.
func reassembler() nic.Stage { return reassembly{fragment.New(fragment.Limits{})} }

// bare takes the annotation off.
type bare struct{ *pipeline.Pipeline }

func (b bare) Batch(frames [][]byte) [][]byte {
	for i, f := range b.Pipeline.Batch(frames) {
		frames[i], _, _ = status.Split(f)
	}
	return frames
}

func mirrored(sas []*sa.SA) (back []*sa.SA) {
	for _, s := range sas {
		m := *s
		m.Src, m.Dst = s.Dst, s.Src
		m.SPI += 0x1000
		back = append(back, &m)
	}
	return back
}

// counted is how often a reason was counted.
func (h *host) counted(r Reason) uint64 { return h.sender.Counts()[r] }

// A Linux stack that believes in 1500 bytes learns by ICMP what fits, and TCP
// goes through (RFC 4301 section 8.2). Its reverse path filter, which is on,
// takes the ICMP error for one of the destination.
func TestPathMTU(t *testing.T) {
	for name, c := range map[string]struct {
		sas  func(v int) []*sa.SA
		want map[int]string
	}{
		"tunnel":     {func(v int) []*sa.SA { return []*sa.SA{site(v)} }, map[int]string{4: "1446", 6: "1426"}},
		"UDP tunnel": {func(v int) []*sa.SA { return []*sa.SA{with(site(v), encap)} }, map[int]string{4: "1438", 6: "1418"}},
		"transport":  {func(v int) []*sa.SA { return []*sa.SA{web(v)} }, map[int]string{4: "1466", 6: "1466"}},
		"nested":     {func(v int) []*sa.SA { return []*sa.SA{web(v), site(10 - v)} }, map[int]string{4: "1390", 6: "1410"}},
		"bundle":     {func(v int) []*sa.SA { return []*sa.SA{siteCBC(v), with(siteAH(v), over("site-cbc"))} }, map[int]string{4: "1406", 6: "1374"}},
	} {
		for _, v := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s of IPv%d", name, v), func(t *testing.T) {
				n := connect(t, 1500, nil, c.sas(v)...)
				if said, err := n.a.Run("sysctl -w net.ipv4.conf.a0.rp_filter=1"); err != nil {
					t.Logf("no reverse path filter: %s", said)
				}
				n.a.Transfer(n.b.Stack, hosts[v][1], 300_000)
				n.b.Transfer(n.a.Stack, hosts[v][0], 300_000)
				if got := n.a.PathMTU(hosts[v][1]); got != c.want[v] {
					t.Errorf("path MTU %q, want %s", got, c.want[v])
				}
				if n.a.counted(Replies) == 0 || n.a.counted(Sealed) < 100 || n.a.counted(Pieces) != 0 {
					t.Errorf("counted%s", counts(n.a.sender))
				}
				n.stop()
				if n.wire.clear != 0 || n.wire.longest > 1500 {
					t.Errorf("on the wire: %+v", n.wire)
				}
			})
		}
	}
}

// A stack may believe in more than the wire takes.
func TestJumboStack(t *testing.T) {
	n := connect(t, 9000, nil, site(4), web(6))
	for v, want := range map[int]string{4: "1446", 6: "1410"} { // IPv6 is nested
		n.a.Transfer(n.b.Stack, hosts[v][1], 300_000)
		if got := n.a.PathMTU(hosts[v][1]); got != want {
			t.Errorf("IPv%d: path MTU %q, want %s", v, got, want)
		}
	}
}

// What a stack lets be fragmented arrives as fragments of the sealed packet (RFC
// 4303 section 3.3.4), what it has cut itself as sealed fragments.
func TestPings(t *testing.T) {
	for _, c := range []struct {
		name                       string
		v                          int
		sa                         *sa.SA
		front                      func() nic.Stage
		options                    string
		sealed, fragmented, pieces uint64 // for three pings
	}{
		{"small in a tunnel", 4, site(4), nil, "-s 100", 3, 0, 0},
		{"of 1500 bytes in a tunnel", 4, site(4), nil, "-s 1472 -M dont", 0, 3, 6},
		{"cut by the stack in a tunnel", 4, site(6), nil, "-s 4000 -M dont", 3, 6, 12},
		{"of 1500 bytes in transport mode", 4, web(4), nil, "-s 1472 -M dont", 0, 3, 6},
		{"cut by the stack in transport mode", 4, web(4), reassembler, "-s 4000 -M dont", 0, 3, 9},
		{"of 1500 bytes in transport mode", 6, web(6), nil, "-s 1452", 0, 3, 6},
		{"cut by the stack in transport mode", 6, web(6), reassembler, "-s 4000", 0, 3, 9},
	} {
		t.Run(fmt.Sprintf("IPv%d %s", c.v, c.name), func(t *testing.T) {
			n := connect(t, 1500, c.front, c.sa)
			for range 3 {
				n.a.ping(hosts[c.v][1], c.options, "1 received")
			}
			got := n.a.sender.Counts()
			if got[Sealed] != c.sealed || got[Fragmented] != c.fragmented || got[Pieces] != c.pieces {
				t.Errorf("counted%s", counts(n.a.sender))
			}
			n.stop()
			if n.wire.longest > 1500 || n.wire.fragments != int(c.pieces) || n.wire.clear != 0 {
				t.Errorf("on the wire: %+v", n.wire)
			}
		})
	}
}

// A ping that must not be fragmented, or cannot since it is IPv6, comes back as
// an error that says what would fit; what the stack then sends arrives.
func TestPingsTooLong(t *testing.T) {
	n := connect(t, 1500, nil, site(4), web(6))
	n.a.ping(hosts[4][1], "-M do -s 1472", "mtu = 1446")
	n.a.ping(hosts[4][1], "-M do -s 1418", "1 received")
	n = connect(t, 1500, nil, site(6))
	n.a.ping(hosts[6][1], "-s 4000", "mtu=1426")
	n.b.ping(hosts[6][0], "-s 4000", "mtu=1426")
	n.a.ping(hosts[6][1], "-s 4000", "1 received")
}

// ping sends one, and fails the test unless ping says what it should. For the answer to the last of several
// it would not wait.
func (h *host) ping(to netip.Addr, options, want string) {
	h.t.Helper()
	said, _ := h.Run("ping -n -c 1 -W 60 " + options + " " + to.String())
	if !strings.Contains(said, want) {
		h.t.Errorf("ping %s: no %q in:\n%s", options, want, said)
	}
}

// UDP sets DF on what it believes to fit, and fragments by itself once it has
// been told: in transport mode its fragments have to be put together again.
func TestDatagrams(t *testing.T) {
	n := connect(t, 1500, reassembler, web(4))
	var from, to net.PacketConn
	listen := func(c *net.PacketConn, addr netip.Addr) func() error {
		return func() (err error) {
			*c, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 9).String())
			return err
		}
	}
	n.a.Must(listen(&from, hosts[4][0]))
	n.b.Must(listen(&to, hosts[4][1]))
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 1<<16)
	for i, size := range []int{1472, 1472, 1439, 20000} {
		if _, err := from.WriteTo(make([]byte, size), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // this one is told
			for deadline := time.Now().Add(time.Minute); n.a.PathMTU(hosts[4][1]) != "1466" && time.Now().Before(deadline); {
				time.Sleep(2 * time.Millisecond)
			}
			continue
		}
		to.SetReadDeadline(time.Now().Add(time.Minute))
		if got, _, err := to.ReadFrom(buf); err != nil || got != size {
			t.Errorf("%d of %d bytes arrived, %v", got, size, err)
		}
	}
	if n.a.counted(Replies) != 1 || n.a.counted(Fragment) != 0 {
		t.Errorf("counted%s", counts(n.a.sender))
	}
}

// What is judged to fit a packet socket is what the kernel takes there, whatever tags
// are in front, and one byte more it does not take (contract, The sending side).
func TestTagsOnSocket(t *testing.T) {
	rig.Require(t)
	h := newHost(t, "t0", 1500, 0)
	var attached *tap.Device
	h.Must(func() (err error) {
		attached, err = tap.Attach("t0")
		return err
	})
	defer attached.Close()
	for _, tags := range [][]uint32{nil, {0x8100_0064}, {0x88a8_0064}, {0x8100_0064, 0x8100_0007}, {0x88a8_0064, 0x8100_0007}, {0x8100_0064, 0x88a8_0007}} {
		for _, v := range []int{4, 6} {
			for _, sas := range [][]*sa.SA{nil, {site(4)}, {web(v), site(6)}} {
				tagsOnSocket(t, attached, v, tags, sas)
			}
			uncut := forge.AppendFrame(nil, tellable(v, 1500)[22:], tags...)
			if s := newSender(t, Config{}); len(send(s, uncut)) != 1 {
				t.Errorf("%x: a TAP takes tags beyond the MTU:%s", tags, counts(s))
			}
		}
	}
}

func tagsOnSocket(t *testing.T, attached *tap.Device, v int, tags []uint32, sas []*sa.SA) {
	t.Helper()
	var a answered
	s := newSender(t, Config{SAs: sas, Socket: true, Reply: a.reply})
	frame := func(n int) []byte { return forge.AppendFrame(nil, tellable(v, n)[22:], tags...) }
	long := frame(1501)
	send(s, long)
	fits := told(t, a.frames[0], long)
	sent := send(s, frame(fits))
	if len(sent) != 1 {
		t.Fatalf("%x: not sent:%s", tags, counts(s))
	}
	if err := attached.Inject(sent[0]); err != nil {
		t.Errorf("%x, %d bytes in a frame of %d: %v", tags, fits, len(sent[0]), err)
	}
	if len(sas) == 0 {
		if err := attached.Inject(frame(fits + 1)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%x: the kernel takes more than %d bytes: %v", tags, fits, err)
		}
	}
	for _, f := range send(s, forge.AppendFrame(nil, sized(4, 1500)[14:], tags...)) {
		if err := attached.Inject(f); err != nil {
			t.Errorf("%x, a piece of %d bytes: %v", tags, len(f), err)
		}
	}
}
