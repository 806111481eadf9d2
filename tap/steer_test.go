package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
	"tapsec/wire"
)

// steered is a TAP of several queues that steers by SPI, seen from both ends.
type steered struct {
	*Device
	in *rig.Socket
}

func openSteered(t *testing.T, by Steering, queues int) *steered {
	t.Helper()
	if err := CanSteer(); err != nil && by == SteerSPI {
		rig.Missing(t, err.Error())
	}
	d := openTAP(t, Config{Name: "steered", Queues: queues, MTU: 9000})
	if now, _, err := d.Steer(by); err != nil || now != by {
		t.Fatal(now, err)
	}
	if err := errors.Join(netns.Up("steered"), netns.Ready("steered")); err != nil {
		t.Fatal(err)
	}
	return &steered{d, testkit.Listen(t, "steered")}
}

// queue sends a frame and returns the queue by which it came.
func (s *steered) queue(t *testing.T, frame []byte) int {
	t.Helper()
	if err := s.in.Send(frame); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10000)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for i, f := range s.queues {
			n := 0
			err := control(f, func(fd int) (err error) { n, err = unix.Read(fd, buf); return err })
			if err == nil && bytes.Equal(buf[:n], frame) {
				return i
			}
			if err != unix.EAGAIN {
				t.Fatalf("queue %d: %d bytes, %v", i, n, err)
			}
		}
	}
	t.Fatalf("%x came by no queue", frame)
	return 0
}

// outermost is the SPI that the NIC's own parser finds.
func outermost(frame []byte) (spi uint32, found bool) {
	etherType, l3, ok := wire.Ethernet(frame)
	version := map[uint16]uint8{wire.EtherIPv4: 4, wire.EtherIPv6: 6}[etherType]
	if !ok || version == 0 {
		return 0, false
	}
	p, err := wire.ParseIP(frame, l3, len(frame), version)
	if err != nil || p.Fragment {
		return 0, false
	}
	b := frame[p.Header:]
	switch p.Proto {
	case wire.ProtoAH:
		b = b[min(4, len(b)):]
	case wire.ProtoUDP:
		if _, port, _, ok := wire.UDP(b); !ok || port != 4500 {
			return 0, false
		}
		b = b[wire.UDPLen:]
	case wire.ProtoESP:
	default:
		return 0, false
	}
	if len(b) < 4 {
		return 0, false
	}
	spi = binary.BigEndian.Uint32(b)
	return spi, spi != 0
}

// The kernel's program finds the SPI where the NIC's own parser does, in every frame of the contract
// and of others' vectors, with VLAN tags in front too. The rest goes one way each time.
func TestSteerBySPI(t *testing.T) {
	rig.Require(t)
	const queues = 3
	s := openSteered(t, SteerSPI, queues)
	found, used := 0, map[int]int{}
	for _, lab := range append(conformance.Contract(), conformance.Vectors()...) {
		for _, c := range lab.Cases {
			for _, tags := range []string{"", "\x81\x00\x00\x07", "\x88\xa8\x00\x07\x81\x00\x01\x23"} {
				frame := bytes.Join([][]byte{c.Frame[:12], []byte(tags), c.Frame[12:]}, nil)
				got := s.queue(t, frame)
				used[got]++
				spi, ok := outermost(frame)
				if ok {
					found++
				}
				if want := int(spi & 0xffff % queues); ok && got != want {
					t.Errorf("%s, %s: SPI %#x came by queue %d, want %d", lab.Name, c.Title, spi, got, want)
				} else if again := s.queue(t, frame); again != got {
					t.Errorf("%s, %s: queue %d, then %d", lab.Name, c.Title, got, again)
				}
			}
		}
	}
	if found < 1000 || len(used) != queues {
		t.Errorf("%d frames with an SPI, queues %v", found, used)
	}
}

// Whatever stands in front of an SPI, and whatever it is, the SPI alone counts.
func TestSteerLooksAtTheSPIAlone(t *testing.T) {
	rig.Require(t)
	const queues = 4
	s := openSteered(t, SteerSPI, queues)
	for spi := range uint32(64) {
		spi = spi<<26 + spi + 256 // the sign bit too
		for name, frame := range shapes(spi) {
			if got := s.queue(t, frame); got != int(spi%queues) {
				t.Errorf("%s: SPI %#x came by queue %d", name, spi, got)
			}
		}
	}
}

// shapes are frames with an SPI, the rest of them drawn at random.
func shapes(spi uint32) map[string][]byte {
	four := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(rand.Int()), 1}), uint16(rand.Int()))
	six := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00::%x", rand.Uint32()&0xffff)), uint16(rand.Int()))
	esp := binary.BigEndian.AppendUint32(nil, spi)
	for range 2 + rand.IntN(20) {
		esp = binary.BigEndian.AppendUint32(esp, rand.Uint32())
	}
	ah := append([]byte{50, 4, 0, 0}, esp...)
	as := func(proto byte, from netip.AddrPort, payload []byte) []byte {
		packet := forge.UDP(nil, from, from, payload[wire.UDPLen:])
		copy(packet[len(packet)-len(payload):], payload) // over the UDP header
		packet[map[bool]int{true: 9, false: 6}[from.Addr().Is4()]] = proto
		return packet
	}
	port := func(from netip.AddrPort) []byte {
		return forge.UDP(nil, from, netip.AddrPortFrom(from.Addr(), 4500), esp)
	}
	all := map[string][]byte{
		"ESP":      as(50, four, esp),
		"AH":       as(51, four, ah),
		"ESP, v6":  as(50, six, esp),
		"AH, v6":   as(51, six, ah),
		"NAT-T":    port(four),
		"NAT-T v6": port(six),
	}
	all["IPv4 options"] = forge.Options(nil, all["ESP"], bytes.Repeat([]byte{1}, 4*(1+rand.IntN(10))))
	chained := all["AH, v6"]
	for range 8 {
		chained = forge.Extension(nil, chained, wire.ProtoDestOpts, make([]byte, 8))
	}
	all["eight extension headers"] = chained
	for name, packet := range all {
		all[name] = forge.AppendFrame(nil, packet)
		all[name+", tagged"] = forge.AppendFrame(nil, packet, 0x88a80001, 0x81000002)
	}
	return all
}

// Without an SPI a flow keeps its queue, different ones spread, and fragments, of which all but one have
// no ports, stay together.
func TestSteerWithoutSPI(t *testing.T) {
	rig.Require(t)
	const queues, flows = 4, 64
	s := openSteered(t, SteerSPI, queues)
	used := map[int]int{}
	for i := range uint16(flows) {
		from := netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), 1000+i)
		flow := forge.AppendFrame(nil, forge.UDP(nil, from, netip.MustParseAddrPort("10.3.2.1:4500"), []byte("\x00\x00\x00\x00, so it is IKE")))
		want := s.queue(t, flow)
		used[want]++
		if again := s.queue(t, append(flow, "more"...)); again != want {
			t.Errorf("flow %d: queue %d, then %d", i, want, again)
		}
		first, later := bytes.Clone(flow), bytes.Clone(flow)
		first[14+6], later[14+7] = 0x20, 3
		later[14+20] = byte(i) // data where the first has its ports
		if one, two := s.queue(t, first), s.queue(t, later); one != two {
			t.Errorf("fragments of flow %d: queues %d and %d", i, one, two)
		}
	}
	for i := range queues {
		if used[i] == 0 {
			t.Errorf("flows by queue: %v", used)
		}
	}
	for _, short := range []string{"", "\x45", "\x60", "\x4f" + string(make([]byte, 30))} {
		frame := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00"), short...)
		if got := s.queue(t, frame); got != 0 {
			t.Errorf("%x: queue %d, want the first", frame, got)
		}
	}
}

// Where no program may be loaded, steering that is left open is by flow, and one that is asked for an
// error; a program that an earlier one left on the interface is taken off. Capabilities are a thread's.
func TestSteerWithoutPrivilege(t *testing.T) {
	s := openSteered(t, SteerSPI, 2)
	err := within(t, func() error {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		if _, _, err := s.Steer(SteerSPI); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_BPF") {
			t.Errorf("asked for: %v", err)
		}
		now, why, err := s.Steer(SteerAuto)
		if now != SteerFlow || !strings.Contains(why, "CAP_BPF") {
			t.Errorf("left open: %v, %q", now, why)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	used := map[int]bool{} // to the kernel it is one flow
	here, there := netip.MustParseAddrPort("10.9.9.9:4500"), netip.MustParseAddrPort("10.9.9.8:4500")
	for spi := range uint32(8) {
		used[s.queue(t, forge.AppendFrame(nil, forge.UDP(nil, here, there, binary.BigEndian.AppendUint64(nil, uint64(256+spi)<<32))))] = true
	}
	if len(used) != 1 {
		t.Error("the program is still there")
	}
}
