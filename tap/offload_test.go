package tap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
	"tapsec/wire"
)

// offload sends frames with a virtio header in front by an interface, as a virtual machine would: not
// yet cut, and without their checksums.
type offload struct{ fd int }

func openOffload(t testing.TB, name string) offload {
	t.Helper()
	index, err := indexOf(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})
	}
	if err != nil {
		t.Fatal(err)
	}
	return offload{fd}
}

// send sends a frame whose checksum at place bytes behind start is left to hardware, to be cut into
// pieces of so many bytes by a kind of merging.
func (o offload) send(kind uint8, size, start, place int, frame []byte) error {
	order := binary.NativeEndian
	b := append([]byte{unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, kind}, make([]byte, 8)...)
	order.PutUint16(b[2:], uint16(min(len(frame), start+20)))
	order.PutUint16(b[4:], uint16(size))
	order.PutUint16(b[6:], uint16(start))
	order.PutUint16(b[8:], uint16(place))
	_, err := unix.Write(o.fd, append(b, frame...))
	return err
}

// inPacket is a frame with an IP packet, with all its checksums, and where its upper header begins.
func inPacket(t testing.TB, v6 bool, tags string, upper gopacket.SerializableLayer, payload []byte) (frame []byte, start int) {
	t.Helper()
	proto := map[bool]layers.IPProtocol{true: layers.IPProtocolTCP, false: layers.IPProtocolUDP}[upper.LayerType() == layers.LayerTypeTCP]
	link := append(bytes.Clone(header[:12]), tags...)
	var stack []gopacket.SerializableLayer
	var ip gopacket.NetworkLayer
	if v6 {
		six := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolIPv6Destination, SrcIP: make([]byte, 16), DstIP: bytes.Repeat([]byte{5}, 16)}
		ip, stack = six, []gopacket.SerializableLayer{gopacket.Payload(append(link, 0x86, 0xdd)), six, gopacket.Payload{byte(proto), 0, 1, 4, 0, 0, 0, 0}}
	} else {
		four := &layers.IPv4{Version: 4, TTL: 9, Protocol: proto, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
		ip, stack = four, []gopacket.SerializableLayer{gopacket.Payload(append(link, 8, 0)), four}
	}
	if err := upper.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}).SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	how := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, how, append(stack, upper, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	start = len(link) + 2 + 20
	if v6 {
		start += 28
	}
	return bytes.Clone(buf.Bytes()), start
}

// mergedKind is a flow that may be merged.
type mergedKind struct {
	v6, tcp bool
	tags    string
}

var mergedKinds = map[string]mergedKind{
	"tcp4": {tcp: true}, "tcp6": {tcp: true, v6: true}, "udp4": {}, "udp6": {v6: true},
	"tcp4 behind a tag":    {tcp: true, tags: "\x81\x00\x00\x05"},
	"udp6 behind two tags": {v6: true, tags: "\x88\xa8\x00\x05\x81\x00\x00\x06"},
}

// frame is number of count frames, or all of them merged, and where its upper header begins.
func (k mergedKind) frame(t testing.TB, number, count, size int, payload []byte) ([]byte, int) {
	if k.tcp {
		last := number == count-1
		return inPacket(t, k.v6, k.tags, &layers.TCP{Seq: 4000000000 + uint32(size*number), ACK: true, PSH: last, FIN: last}, payload)
	}
	return inPacket(t, k.v6, k.tags, &layers.UDP{SrcPort: 4500, DstPort: 4500}, payload)
}

// frames are those of a flow, all of one size but the last.
func (k mergedKind) frames(t testing.TB, count, size int) (frames [][]byte, stream []byte) {
	stream = make([]byte, (count-1)*size+1)
	for i := range stream {
		stream[i] = byte(i >> 3)
	}
	for i := range count {
		f, _ := k.frame(t, i, count, size, stream[i*size:min(len(stream), (i+1)*size)])
		if !k.v6 {
			identify(f, 14+len(k.tags), i)
		}
		frames = append(frames, f)
	}
	return frames, stream
}

// send sends a flow merged by an interface, and returns its frames and the length of what was sent.
func (k mergedKind) send(t testing.TB, name string, count, size int) (frames [][]byte, length int) {
	kind, place := uint8(unix.VIRTIO_NET_HDR_GSO_UDP_L4), 6
	if k.tcp {
		if kind, place = unix.VIRTIO_NET_HDR_GSO_TCPV4, 16; k.v6 {
			kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
	}
	frames, stream := k.frames(t, count, size)
	merged, start := k.frame(t, 0, count, size, stream)
	if k.tcp {
		merged[start+13] |= 0x09 // FIN and PSH are the last piece's
	}
	leaveOpen(t, merged, 14+len(k.tags))
	if err := openOffload(t, name).send(kind, size, start, place, merged); err != nil {
		t.Fatal(err)
	}
	return frames, len(merged)
}

// test sends a merged flow by an interface, with a frame before and one behind it, and wants to see it
// cut on the link, and as one beside that, where there is anybody.
func (k mergedKind) test(t *testing.T, in *single, name string, beside *rig.Socket) {
	const size, pieces = 300, 3 * Batch / 2
	count := pieces
	if !k.tcp {
		count = 60 // the kernel takes no more of datagrams
	}
	far, first, last := testkit.Listen(t, name), frame(1, 60), frame(2, 60)
	if err := far.Send(first); err != nil {
		t.Fatal(err)
	}
	flow, length := k.send(t, name, count, size)
	if err := far.Send(last); err != nil {
		t.Fatal(err)
	}
	expect(t, in, append(append([][]byte{first}, flow...), last))
	if beside == nil {
		return
	}
	for range 2 { // it did come as one
		got, err := beside.Receive(time.Minute)
		if err == nil && bytes.Equal(got, first) {
			continue
		}
		if err != nil || len(got) != length {
			t.Errorf("%d bytes, %v: what was sent has %d", len(got), err, length)
		}
	}
}

// What was merged comes as the frames that it stands for, in order, between those sent before and behind
// it: more of them than a batch holds, behind tags that the kernel keeps apart and those that it does
// not, and however short the room.
func TestAttachedCutsWhatWasMerged(t *testing.T) { attachments(t, testAttachedCutsWhatWasMerged) }

func testAttachedCutsWhatWasMerged(t *testing.T, how Options) {
	for name, kind := range mergedKinds {
		t.Run(name, func(t *testing.T) {
			_, _, in, _ := attached(t, how, 1522, 64)
			beside := testkit.Listen(t, "near")
			if how.Engine == XDP {
				beside = nil // by which nothing comes here; native, it has the other end cut
			}
			kind.test(t, in, "far", beside)
		})
	}
}

// leaveOpen leaves of a checksum what a stack does.
func leaveOpen(t testing.TB, frame []byte, at int) {
	t.Helper()
	p, err := wire.ParseIP(frame, at, len(frame), frame[at]>>4)
	if err != nil {
		t.Fatal(err)
	}
	wire.PartialSum(frame, &p)
}

// identify numbers an IPv4 packet that had the number 0.
func identify(frame []byte, at, id int) {
	binary.BigEndian.PutUint16(frame[at+4:], uint16(id))
	sum := uint32(binary.BigEndian.Uint16(frame[at+10:])) + uint32(^uint16(id))
	binary.BigEndian.PutUint16(frame[at+10:], uint16(sum+sum>>16))
}

// expect receives exactly these frames.
func expect(t *testing.T, in *single, want [][]byte) {
	t.Helper()
	var got [][]byte
	for len(got) < len(want) {
		frames, err := in.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if cap(f)-len(f) < 64 {
				t.Errorf("frame %d has %d spare bytes", len(got), cap(f)-len(f))
			}
			got = append(got, bytes.Clone(f))
		}
	}
	for i, f := range got {
		if i >= len(want) || !bytes.Equal(f, want[i]) {
			t.Fatalf("frame %d of %d:\n%s", i, len(got), hex.Dump(f[:min(len(f), 100)]))
		}
	}
	if tally := in.Tally(); int(tally.In) != len(want) || tally.Oversize+tally.Uncut != 0 {
		t.Errorf("%+v, of %d frames", tally, len(want))
	}
}

// A checksum that is left to hardware is SCTP's CRC32c (RFC 9260 section 6.8) where its place is SCTP's,
// and else the Internet checksum, behind tags and extension headers, too.
func TestAttachedFinishesChecksums(t *testing.T) { attachments(t, testAttachedFinishesChecksums) }

func testAttachedFinishesChecksums(t *testing.T, how Options) {
	_, _, in, _ := attached(t, how, 1522, 64)
	sender := openOffload(t, "far")
	var want [][]byte
	for _, tags := range []string{"", "\x81\x00\x00\x05", "\x88\xa8\x00\x05\x81\x00\x00\x06"} {
		for _, v6 := range []bool{false, true} {
			datagram, start := inPacket(t, v6, tags, &layers.UDP{SrcPort: 7, DstPort: 8}, []byte("to nobody"))
			want = append(want, bytes.Clone(datagram))
			right := binary.BigEndian.Uint16(datagram[start+6:])
			// The sum of the pseudo-header is what is left when all that follows is taken away.
			clear(datagram[start+6 : start+8])
			rest := udpOnes(datagram[start:])
			binary.BigEndian.PutUint16(datagram[start+6:], minus(^right, rest))
			if err := sender.send(unix.VIRTIO_NET_HDR_GSO_NONE, 0, start, 6, datagram); err != nil {
				t.Fatal(err)
			}
			sctp := append(bytes.Clone(datagram[:start]), "\x00\x07\x00\x08tagsSUM?\x00\x03\x00\x05a"...)
			ofSCTP(sctp, start, v6)
			if how.Engine == XDP { // by which only what a stack leaves there is told
				clear(sctp[start+8 : start+12])
			}
			if sent := sender.send(unix.VIRTIO_NET_HDR_GSO_NONE, 0, start, 8, sctp); sent != nil {
				t.Fatal(sent)
			}
			sctp = bytes.Clone(sctp)
			clear(sctp[start+8 : start+12])
			binary.LittleEndian.PutUint32(sctp[start+8:], crc32.Checksum(sctp[start:], crc32.MakeTable(crc32.Castagnoli)))
			want = append(want, sctp)
		}
	}
	expect(t, in, want)
}

// ofSCTP makes the IP packet in front of start one of SCTP's.
func ofSCTP(frame []byte, start int, v6 bool) {
	if v6 {
		frame[start-8] = 132
		return
	}
	h := frame[start-wire.IPv4Len : start]
	h[9], h[10], h[11] = 132, 0, 0
	binary.BigEndian.PutUint16(h[10:], wire.Checksum(0, h))
}

// udpOnes adds up 16-bit words.
func udpOnes(b []byte) (sum uint16) {
	for b = append(bytes.Clone(b), 0); len(b) >= 2; b = b[2:] {
		s := uint32(sum) + uint32(binary.BigEndian.Uint16(b))
		sum = uint16(s + s>>16)
	}
	return sum
}

// minus takes b from a in one's complement.
func minus(a, b uint16) uint16 {
	s := uint32(a) + uint32(^b)
	return uint16(s + s>>16)
}

// guest is a TAP as a virtual machine has it, whose frames come with a virtio header.
func guest(t *testing.T, name string) offload {
	t.Helper()
	fd, err := unix.Open(controlFile, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr), netns.Quiet(name), netns.Up(name), netns.Ready(name)); err != nil {
		t.Fatal(err)
	}
	return offload{fd}
}

// Contract, The system: what cannot be cut is counted, and so is each piece that is too long; what comes
// behind is received.
func TestAttachedCountsWhatCannotBeCut(t *testing.T) {
	rig.Require(t)
	sender := guest(t, "guest")
	near, err := Attach("guest")
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	in := link(t, Options{}, near, near, 600, 64)
	datagram, start := inPacket(t, false, "", &layers.UDP{SrcPort: 7, DstPort: 8}, make([]byte, 4000))
	segments, at := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, 1500))
	plain, behind := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, 9))
	for _, err := range []error{
		sender.send(unix.VIRTIO_NET_HDR_GSO_UDP, 1400, start, 6, datagram),
		sender.send(unix.VIRTIO_NET_HDR_GSO_TCPV4, 700, at, 16, segments),
		sender.send(unix.VIRTIO_NET_HDR_GSO_NONE, 0, behind, 16, plain),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	frames, err := in.Receive()
	got := in.Tally()
	if err != nil || len(frames) != 2 || len(frames[0]) != 14+20+20+100 || len(frames[1]) != len(plain) || got.Uncut != 1 || got.Oversize != 2 {
		t.Errorf("%d frames, %v, %+v", len(frames), err, got)
	}
}

// What was received as one frame is handed out to the last piece.
func TestAttachedStopsBehindTheLastPiece(t *testing.T) {
	engines(t, testAttachedStopsBehindTheLastPiece)
}

func testAttachedStopsBehindTheLastPiece(t *testing.T, how Options) {
	const size, count = 100, Batch + 9
	_, _, in, _ := attached(t, how, 1522, 64)
	segments, start := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, count*size))
	if err := openOffload(t, "far").send(unix.VIRTIO_NET_HDR_GSO_TCPV4, size, start, 16, segments); err != nil {
		t.Fatal(err)
	}
	first, err := in.Receive()
	if err != nil || len(first) != Batch {
		t.Fatalf("%d frames, %v", len(first), err)
	}
	in.Stop()
	if rest, err := in.Receive(); err != nil || len(rest) != count-Batch {
		t.Errorf("%d frames, %v", len(rest), err)
	}
	if _, err := in.Receive(); err != ErrStopped {
		t.Error(err)
	}
}

// A frame of which no virtio header tells how it was merged ends a packet ring in the kernel. That is
// noticed, and the frames come without it; those in between the kernel has counted.
func TestPacketRingThatTheKernelBreaks(t *testing.T) {
	rig.Require(t)
	sender := guest(t, "guest")
	near, err := Attach("guest")
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	in := link(t, Options{Engine: Ring}, near, near, 600, 64)
	datagram, start := inPacket(t, false, "", &layers.UDP{SrcPort: 7, DstPort: 8}, make([]byte, 4000))
	plain, behind := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, 9))
	var sent uint64
	send := func(frame []byte) {
		if err := sender.send(unix.VIRTIO_NET_HDR_GSO_NONE, 0, behind, 16, frame); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	last, _ := inPacket(t, false, "", &layers.TCP{ACK: true}, make([]byte, 30))
	ended := make(chan error, 1)
	var came atomic.Uint64 // of those
	go func() {
		for {
			frames, err := in.Receive()
			for _, f := range frames {
				if len(f) == len(last) {
					came.Add(1)
				}
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	send(plain)
	if err := sender.send(unix.VIRTIO_NET_HDR_GSO_UDP, 1400, start, 6, datagram); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, is func() bool) {
		for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, in.Tally())
			}
		}
	}
	wait("not noticed", func() bool { send(plain); return in.Tally().Uncut == 1 })
	for range 10 {
		send(last)
	}
	wait("frames are missing", func() bool { return came.Load() == 10 })
	if drops, err := near.Drops(); err != nil || drops.Tx < 2 || in.Tally().In+drops.Tx-1 > sent {
		t.Errorf("the kernel did not break the ring: %d sent, %+v, %v, %+v", sent, drops, err, in.Tally())
	}
	in.Stop()
	if err := within(t, func() error { return <-ended }); err != ErrStopped {
		t.Error(err)
	}
	if workers, err := Join(near, openTAP(t, Config{Name: "tb"}), 0, Options{Room: 600}); err != nil {
		t.Error(err)
	} else if kind, why := workers[0].Engine(); kind != Plain || !strings.Contains(why, "guest") {
		t.Errorf("the next worker: %v, %s", kind, why)
	}
}

// What this machine sends to itself comes in one frame of up to 64 KiB, which lo does not cut, with its
// checksum.
func TestAttachedToLoopback(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("loop") // where nothing else is said
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var lo *Device
	var conn *net.UDPConn
	if err := ns.Do(func() (err error) {
		if lo, err = Attach("lo"); err != nil {
			return err
		}
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9")))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer lo.Close()
	defer conn.Close()
	in := link(t, Options{}, lo, lo, 65575+14, 64)
	if _, err := conn.Write(bytes.Repeat([]byte{7}, 65507)); err != nil {
		t.Fatal(err)
	}
	frames, err := in.Receive()
	if err != nil || len(frames) == 0 || len(frames[0]) != 65535+14 || udpSum(frames[0]) != 0xffff {
		t.Errorf("%d frames, %v, %+v", len(frames), err, in.Tally())
	}
}
