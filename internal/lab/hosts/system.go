// Package hosts is the whole system at work: two plain stacks, the wire between
// them, and on it a NIC with its transport.
package hosts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/internal/wrap"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/transport"
)

// Show shows NIC and transport together carrying a real stack's traffic.
//
//	host a: stack -> seal -> wire -> NIC -> transport -> stack: host b
//
// and the same from b to a. While a bulk transfer runs, frames come from the
// wire that must not reach b.
func Show(out io.Writer) (good bool, err error) {
	s, err := NewPair(0, false)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	fmt.Fprint(out, "\nTwo hosts, each a plain Linux stack: a <== ESP ==> NIC and transport of b.\n\n")
	good = true
	for _, to := range []string{There, "fd77::2"} {
		took, err := s.ping(netip.MustParseAddr(to))
		good = good && err == nil
		report(out, "ping "+to, "answered after "+took.Round(10*time.Microsecond).String(), err)
	}
	bad, err := s.hostile()
	if err != nil {
		return false, err
	}
	stop := s.inject(bad, -1)
	rate, err := s.transfer(transferred)
	injected := stop()
	good = good && err == nil
	report(out, fmt.Sprintf("TCP, %d MiB from a to b", transferred>>20), fmt.Sprintf("arrived whole, %.0f Mbit/s", rate), err)
	return s.account(out, bad, injected) && good, nil
}

const (
	transferred = 32 << 20
	patience    = time.Minute // on a busy machine
)

func report(out io.Writer, what, fine string, err error) {
	if err != nil {
		fine = "FAILED: " + err.Error()
	}
	sayf(out, 29, "  %-26s %s", what, fine)
}

// sayf prints a line that is broken, with an indent, where a terminal ends.
func sayf(out io.Writer, indent int, format string, args ...any) {
	fmt.Fprintln(out, wrap.Text(fmt.Sprintf(format, args...), indent, wrap.Width))
}

// There is the address of b's stack, to which a's packets go sealed.
const There = "10.77.0.2"

// Pair is two hosts, a and b, and the wire between them, in this process, inside a rig.
type Pair struct {
	config   *configs.Config
	unmerged tap.Merging // what does not pass merged between a transport and its stack
	ns       map[string]*netns.Namespace
	b, a     *appliance.Appliance
	cancel   context.CancelFunc
	ended    chan error
}

// NewPair puts up the hosts a and b. Unmerged is what does not pass merged between a transport and
// its stack, and on the wire. Their tunnels may be in UDP.
func NewPair(unmerged tap.Merging, udp bool) (s *Pair, err error) {
	s = &Pair{unmerged: unmerged, ns: map[string]*netns.Namespace{}, ended: make(chan error, 2)}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(err, s.Close())
		}
	}()
	for _, h := range Plan() {
		if err := s.stack(h); err != nil {
			return s, err
		}
	}
	full, _ := sa.ProfileByName("full")
	if s.config, err = configs.Parse("rig.yaml", configs.Rig(full, true)); err != nil {
		return s, err
	}
	for i := range s.config.SAs {
		s.config.SAs[i].Encap = udp && s.config.SAs[i].Mode == sa.Tunnel
	}
	if s.b, err = s.start(ctx, "b", false); err != nil {
		return s, err
	}
	if s.a, err = s.start(ctx, "a", true); err != nil {
		return s, err
	}
	err = netns.LongQueues()
	for _, ns := range s.ns {
		err = errors.Join(err, ns.Do(netns.LongQueues))
	}
	return s, err
}

// stack makes a host's namespace and the TAP of its stack.
func (s *Pair) stack(h rig.Host) error {
	if h.Interface == "" {
		return nil
	}
	ns, err := netns.New(h.Name)
	if err != nil {
		return err
	}
	s.ns[h.Name] = ns
	return ns.Do(func() error {
		err := errors.Join(netns.AddTAP(h.Interface, false), netns.SetMTU(h.Interface, h.MTU))
		for _, a := range h.Addresses {
			err = errors.Join(err, netns.Address(h.Interface, a))
		}
		return err
	})
}

// start runs one host's program until the system closes. The wire is made by the
// one that does not attach.
func (s *Pair) start(ctx context.Context, host string, attach bool) (*appliance.Appliance, error) {
	a, err := appliance.New(appliance.Options{Transport: true, Unmerged: s.unmerged, Load: func() (*configs.Config, error) {
		c := *s.config
		c.Wire.Name, c.Wire.Attach, c.Host.Name, c.Host.Netns = "wire0", attach, "stack0", host
		return &c, nil
	}})
	if err != nil {
		return nil, err
	}
	go func() { s.ended <- errors.Join(a.Run(ctx), a.Close()) }()
	<-a.Ready()
	return a, nil
}

// Do calls f in a host's namespace. What it starts stays there.
func (s *Pair) Do(host string, f func() error) error { return s.ns[host].Do(f) }

// Close takes the hosts down.
func (s *Pair) Close() error {
	s.cancel()
	var err error
	for _, r := range []*appliance.Appliance{s.a, s.b} {
		if r != nil {
			err = errors.Join(err, <-s.ended)
		}
	}
	for _, ns := range s.ns {
		err = errors.Join(err, ns.Close())
	}
	return err
}

// ping asks b from a for an echo.
func (s *Pair) ping(to netip.Addr) (took time.Duration, err error) {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	err = s.Do("a", func() error {
		c, err := net.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		begin := time.Now()
		c.SetDeadline(begin.Add(patience))
		for answer := make([]byte, 1500); ; {
			if _, err := c.Write(echo(request)); err != nil {
				return err
			}
			n, _, err := c.(*net.IPConn).ReadFrom(answer) // which leaves the IPv4 header out
			if err != nil {
				return err
			}
			if n > 0 && answer[0] == reply {
				took = time.Since(begin)
				return nil
			}
		}
	})
	return took, err
}

// echo is an ICMP echo request; ICMPv6's checksum is the kernel's.
func echo(kind byte) []byte {
	b := []byte{kind, 0, 0, 0, 0x7a, 0x5e, 0, 1}
	sum := ^(uint16(kind)<<8 + 0x7a5e + 1)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return b
}

// transfer sends n random bytes over TCP from a to b and compares.
func (s *Pair) transfer(n int) (mbits float64, err error) {
	data := make([]byte, n)
	rand.Read(data)
	took, err := s.carry(There+":7001", data, func(c net.Conn) error {
		_, err := c.Write(data)
		return err
	})
	return float64(n) * 8 / 1e6 / took.Seconds(), err
}

// carry has write send data over TCP from a to b, and compares what arrives. It returns how long that
// took, from the connection on.
func (s *Pair) carry(to string, data []byte, write func(net.Conn) error) (took time.Duration, err error) {
	var listener net.Listener
	if err := s.Do("b", func() (err error) {
		listener, err = net.Listen("tcp", to)
		return err
	}); err != nil {
		return 0, err
	}
	defer listener.Close()
	arrived := make(chan []byte, 1)
	go func() {
		var all []byte
		if c, err := listener.Accept(); err == nil {
			c.SetDeadline(time.Now().Add(patience))
			all, _ = io.ReadAll(c) // what is missing shows
			c.Close()
		}
		arrived <- all
	}()
	var c net.Conn
	if err := s.Do("a", func() (err error) {
		c, err = net.DialTimeout("tcp", to, patience)
		return err
	}); err != nil {
		return 0, err
	}
	begin := time.Now()
	c.SetDeadline(begin.Add(patience))
	err = errors.Join(write(c), c.Close())
	if got := <-arrived; err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d of %d bytes arrived, or others", len(got), len(data))
	}
	return time.Since(begin), err
}

// hostileFrame is a frame that must not reach b, and the transport's reason for that.
type hostileFrame struct {
	title  string
	frame  []byte
	reason transport.Reason
}

// hostile makes frames of every kind by which somebody on the wire could try to get
// something into b.
func (s *Pair) hostile() ([]hostileFrame, error) {
	a, b := netip.MustParseAddrPort("10.77.0.1:9"), netip.MustParseAddrPort("10.77.0.2:9")
	packet := forge.UDP(nil, a, b, []byte("this must not arrive"))
	clear := forge.AppendFrame(nil, packet)
	forged := status.Annotate(bytes.Clone(clear), &status.Trailer{
		Word: status.CryptoDone, Reason: status.Verified, WireLen: uint32(max(len(clear), status.MinFrame))})
	replay, err := s.sealed(packet, "ipv4-to-b", "tunnel-to-b")
	if err != nil {
		return nil, err
	}
	flipped := bytes.Clone(replay)
	flipped[len(flipped)-1] ^= 1
	single, err := s.sealed(packet, "ipv4-to-b")
	if err != nil {
		return nil, err
	}
	single[len(single)-1] ^= 1
	unknown := bytes.Clone(replay)
	unknown[14+20] ^= 0x40
	return []hostileFrame{
		{"in clear, though policy wants ESP", clear, transport.Clear},
		{"in clear, with a forged trailer", forged, transport.Clear},
		{"a replay", replay, transport.Replay},
		{"a flipped bit in the tunnel", flipped, transport.ICV},
		{"a flipped bit in the transport portion", single, transport.ICV},
		{"an SPI of nobody", unknown, transport.NoSA},
	}, nil
}

// sealed seals a packet with SAs of the configuration, innermost first, with number 1,
// which b has seen long ago.
func (s *Pair) sealed(packet []byte, names ...string) ([]byte, error) {
	var sas []*sa.SA
	for _, name := range names {
		sas = append(sas, s.config.SAs[slices.IndexFunc(s.config.SAs, func(one *sa.SA) bool { return one.Name == name })])
	}
	sealer, err := outbound.NewSealer(nil, sas...)
	if err != nil {
		return nil, err
	}
	p, err := sealer.Seal(nil, packet)
	return forge.AppendFrame(nil, p), err
}

// inject sends the frames into b's wire that many times, or if times is negative until stop
// is called, which waits for the end and returns how often.
func (s *Pair) inject(bad []hostileFrame, times int) (stop func() int) {
	n, quit, done := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		wire, err := rig.OpenSocket("wire0")
		if err != nil {
			return
		}
		defer wire.Close()
		for n != times {
			for _, h := range bad {
				if wire.Send(h.frame) != nil {
					return
				}
			}
			n++
			select {
			case <-quit:
				if times < 0 {
					return
				}
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() int { close(quit); <-done; return n }
}

// account shows what b's transport counted, and whether that accounts for each bad frame.
func (s *Pair) account(out io.Writer, bad []hostileFrame, rounds int) bool {
	want := map[transport.Reason]int{}
	for _, h := range bad {
		want[h.reason] += rounds
	}
	good := s.settled(want) && rounds > 0
	sum := s.b.Summary().Transport
	var lines []string
	for _, r := range transport.Reasons() {
		if n := want[r]; n > 0 {
			got := int(sum.Reasons[r.String()])
			good = good && got <= n
			lines = append(lines, fmt.Sprintf("%d %s", got, r))
		}
	}
	fmt.Fprintf(out, "  meanwhile, %d times each:\n", rounds)
	for _, h := range bad {
		sayf(out, 45, "    %-40s %s", h.title, h.reason.Sentence())
	}
	sayf(out, 4, "  b's transport: %d delivered, %d after work in software, %d dropped (%s)",
		sum.Verdicts["deliver"], sum.Verdicts["software"], sum.Verdicts["drop"], strings.Join(lines, ", "))
	return good
}

// settled waits until b's transport has counted what is wanted of each reason, less what the wire lost,
// and reports whether it has.
func (s *Pair) settled(want map[transport.Reason]int) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		missing, counts := 0, s.b.Summary().Transport.Reasons
		for r, n := range want {
			missing += max(0, n-int(counts[r.String()]))
		}
		if missing <= s.lost() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// lost is how many frames the wire's own queue could not take, as the kernel
// counts them: on a busy machine b never sees those.
func (s *Pair) lost() int {
	return int(s.b.Summary().Drops[0].Tx)
}

// Plan gives the three namespaces. The addresses of 192.0.2.0/24 are the
// tunnel's endpoints.
func Plan() []rig.Host {
	host := func(name, number string) rig.Host {
		h := rig.Host{Name: name, Interface: "stack0", MTU: MTU}
		for _, a := range []string{"10.77.0." + number + "/24", "fd77::" + number + "/64", "192.0.2." + number + "/32"} {
			h.Addresses = append(h.Addresses, netip.MustParsePrefix(a))
		}
		return h
	}
	return []rig.Host{host("a", "1"), host("b", "2"), {Name: "nic"}}
}

// MTU leaves room on the wire for a tunnel with transport mode inside it.
const MTU = 1400
