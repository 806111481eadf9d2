package hosts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/tap"
)

// Contract, The transport, step 9: the stacks see the same byte streams and the same datagrams whatever passes merged, in either IP
// version, tunnelled and not, in UDP and not, and where merged packets are to pass, some do.
func TestMergingIsUnseen(t *testing.T) {
	if !rig.Own(t) {
		return
	}
	if err := rig.Setup(); err != nil {
		t.Fatal(err)
	}
	rig.Require(t)
	for _, unmerged := range []tap.Merging{0, tap.GRO, tap.TSO | tap.USO, tap.AllMerging} {
		t.Run("without "+unmerged.String(), func(t *testing.T) { unseen(t, unmerged, false) })
	}
	for _, unmerged := range []tap.Merging{0, tap.GRO, tap.Wire, tap.AllMerging} {
		t.Run("in UDP, without "+unmerged.String(), func(t *testing.T) { unseen(t, unmerged, true) })
	}
}

func unseen(t *testing.T, unmerged tap.Merging, udp bool) {
	s, err := NewPair(unmerged, udp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	random := rand.New(rand.NewPCG(17, uint64(unmerged)))
	for _, to := range []string{"10.77.0.2", "fd77::2"} {
		if _, err := s.ping(netip.MustParseAddr(to)); err != nil {
			t.Fatal(err)
		}
		if err := s.stream(net.JoinHostPort(to, "7002"), random); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
		if err := s.datagrams(net.JoinHostPort(to, "7003"), random); err != nil {
			t.Errorf("UDP to %s: %v", to, err)
		}
	}
	moved := s.b.Summary().Moved.ToHost
	on, err := netns.Counters("wire0")
	if err != nil {
		t.Fatal(err)
	}
	if merged := udp && unmerged&tap.Wire == 0; merged != (on.TxPackets < moved.In) {
		t.Errorf("%d frames came by the wire as %d packets", moved.In, on.TxPackets)
	}
	wire := moved.Out
	var packets uint64
	if err := s.ns["b"].Do(func() error {
		c, err := netns.Counters("stack0")
		packets = c.RxPackets
		return err
	}); err != nil {
		t.Fatal(err)
	}
	merged := unmerged&tap.GRO == 0
	if merged != (packets < wire) {
		t.Errorf("%d frames reached the stack as %d packets", wire, packets)
	}
}

// stream sends bytes in writes of all lengths and compares what arrives.
func (s *Pair) stream(to string, random *rand.Rand) error {
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	_, err := s.carry(to, data, func(c net.Conn) error {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(1<<random.IntN(18)))
			if _, err := c.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	return err
}

// write writes datagrams, each by itself or all as one that the kernel or whoever is behind it cuts
// (UDP_SEGMENT in udp(7)).
func write(c *net.UDPConn, datagrams [][]byte, merged bool) (err error) {
	if merged {
		room := unix.CmsgSpace(2)
		b := make([]byte, room)
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(len(datagrams[0])))
		_, _, err = c.WriteMsgUDP(bytes.Join(datagrams, nil), b, nil)
		return err
	}
	for _, d := range datagrams {
		if _, err := c.Write(d); err != nil {
			return err
		}
	}
	return nil
}

// datagrams sends some of all lengths, in runs of the same length as a file would make them, and wants
// each as it was sent, once and in order. None is sent before the receiver has room.
func (s *Pair) datagrams(to string, random *rand.Rand) error {
	var receiver net.PacketConn
	if err := s.ns["b"].Do(func() (err error) {
		receiver, err = net.ListenPacket("udp", to)
		return err
	}); err != nil {
		return err
	}
	defer receiver.Close()
	var c net.Conn
	if err := s.ns["a"].Do(func() (err error) {
		c, err = net.Dial("udp", to)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	const runs, window = 60, 20
	for range runs {
		size := 1 + random.IntN(1300)
		if random.IntN(8) == 0 {
			size = 1500 + random.IntN(3000) // in fragments
		}
		var sent [][]byte
		for range 1 + random.IntN(window) {
			d := make([]byte, size)
			for i := range d {
				d[i] = byte(random.Uint32())
			}
			sent = append(sent, d)
		}
		sent[len(sent)-1] = sent[len(sent)-1][:1+random.IntN(size)]
		if err := write(c.(*net.UDPConn), sent, size <= 1300 && random.IntN(2) == 0); err != nil {
			return err
		}
		receiver.SetDeadline(time.Now().Add(patience))
		got := make([]byte, 1<<16)
		for i, d := range sent {
			n, _, err := receiver.ReadFrom(got)
			if err != nil || !bytes.Equal(got[:n], d) {
				return fmt.Errorf("datagram %d of %d has %d bytes of %d, or others: %v", i, len(sent), n, len(d), err)
			}
		}
	}
	return nil
}
