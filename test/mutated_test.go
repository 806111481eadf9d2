package test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/segment"
	"tapsec/pipeline"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/wire"
)

// What may wait in a socket where nobody may have a large one, and what the kernel counts a frame for besides its bytes.
const (
	room     = 150_000
	overhead = 1000
)

// needsSum is VIRTIO_NET_HDR_F_NEEDS_CSUM.
const needsSum = 1

const nattSA = `
  - {name: road, spi: 0x2001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16, encap: {port: 4500},
     encryption_key: 0x303132333435363738393a3b3c3d3e3fa1a2a3a4}
`

// TestMutated: whatever frames come, over a TAP and over an attached interface whose sender leaves them merged, with
// any virtio header: each leaves once, in order, as the pipeline alone would deliver it. MUTATED is how many frames,
// SEED an earlier run's.
func TestMutated(t *testing.T) {
	rig.Require(t)
	frames, _ := strconv.Atoi(os.Getenv("MUTATED"))
	frames = max(frames, 3000)
	for _, engine := range []string{"ring", "plain"} {
		t.Run("TAP/"+engine, func(t *testing.T) {
			m := newMutator(t, moreSAs+nattSA, "mutw-"+engine, "muth-"+engine, "--engine", engine)
			m.wire = m.open("mutw-"+engine, 1500)
			m.pour(frames)
		})
		t.Run("veth/"+engine, func(t *testing.T) {
			veth(t, "mutv-"+engine, 9000)
			m := newMutator(t, "wire: {attach: true}\n"+moreSAs+nattSA, "mutv-"+engine, "mutk-"+engine, "--engine", engine)
			m.wire = m.open(rig.FarEnd("mutv-"+engine), 9000)
			m.merged = true
			m.pour(frames)
		})
	}
	for _, engine := range []string{"direct", "xdp"} { // which send by AF_XDP, and xdp also receives
		t.Run("two veths/"+engine, func(t *testing.T) {
			if err := tap.CanRedirect(); err != nil && engine == "xdp" {
				rig.Missing(t, err.Error())
			}
			wire, host := "mutv-"+engine, "mutk-"+engine
			veth(t, wire, 3000)
			veth(t, host, 3400) // with room for the verdict
			m := newMutator(t, "wire: {attach: true}\nhost: {attach: true}\n"+moreSAs+nattSA, wire, host, "--engine", engine)
			m.wire, m.merged = m.open(rig.FarEnd(wire), 3000), true
			m.host = listen(t, rig.FarEnd(host))
			m.pour(frames)
		})
	}
}

// TestMutatedStack: whatever a stack sends, merged or not, with any virtio header: what an SA protects never leaves in
// clear, and nothing stops the program.
func TestMutatedStack(t *testing.T) {
	rig.Require(t)
	frames, _ := strconv.Atoi(os.Getenv("MUTATED"))
	for _, engine := range []string{"ring", "plain"} {
		m := newMutator(t, atHome, "mutx-"+engine, "muts-"+engine, "--transport", "muts-"+engine, "--engine", engine)
		m.wire, m.merged = m.open("muts-"+engine, 1500), true // the other way round
		m.host = listen(t, "mutx-"+engine)
		m.mergeable = len(m.seeds)
		for range 3 {
			m.seeds = append(m.seeds, turned(tcpFrame(6000)), turned(framed(plain(server, 1, 5000))), turned(framed(plain(server, 1, 100))))
		}
		for sent, most := 0, max(frames, 3000); sent < most; {
			for m.room = room; m.room > 0; sent++ {
				f := m.mutate(bytes.Clone(m.seeds[max(m.random.IntN(len(m.seeds)*2)-len(m.seeds), 0)]))
				if m.random.IntN(2) == 0 {
					f = m.mutate(bytes.Clone(m.seeds[m.mergeable+m.random.IntN(9)]))
				}
				if m.random.IntN(3) > 0 {
					m.sendMerged(f)
				} else {
					m.send(f)
				}
			}
			m.lookForClear(m.sendFence())
		}
		t.Logf("%s: %d frames came, %d were sent merged\n%s", engine, m.ordinal, m.cut, m.p.stop())
	}
}

// lookForClear receives what was sent, up to the fence.
func (m *mutator) lookForClear(fence []byte) {
	m.t.Helper()
	for {
		frame, err := m.host.Receive(patience)
		if err != nil {
			m.t.Fatalf("the fence does not come: %v\n%s", err, m.p.stop())
		}
		if bytes.Equal(frame, fence) {
			return
		}
		m.ordinal++
		inClear(m.t, frame)
	}
}

// turned is a frame from us to the peer.
func turned(frame []byte) []byte {
	copy(frame[26:], []byte{192, 0, 2, 2, 192, 0, 2, 1})
	return relength(frame)
}

// inClear looks whether a frame is what the SA to the peer should protect, behind any number of tags.
func inClear(t *testing.T, frame []byte) {
	t.Helper()
	at := 12
	for at+4 < len(frame) && (frame[at] == 0x81 && frame[at+1] == 0 || frame[at] == 0x88 && frame[at+1] == 0xa8 || frame[at] == 0x91 && frame[at+1] == 0) {
		at += 4
	}
	if packet := frame[at+2:]; len(packet) >= 20 && frame[at] == 8 && frame[at+1] == 0 && packet[9] != wire.ProtoESP &&
		bytes.Equal(packet[12:20], []byte{192, 0, 2, 2, 192, 0, 2, 1}) {
		t.Errorf("in clear:\n%x", frame)
	}
}

// mutator sends altered frames to a running NIC, and compares what comes.
type mutator struct {
	t         *testing.T
	random    *rand.Rand
	seeds     [][]byte
	mergeable int // the first of three that may be merged ones
	p         *process
	wire      int // packet socket
	mtu       int
	host      port
	alone     *pipeline.Pipeline
	merged    bool // also with virtio headers that lie
	room      int  // bytes that may come until the next fence

	ordinal uint64 // of the last frame that came
	fence   uint32
	cut     int // those that were merged
}

func newMutator(t *testing.T, config, wireName, hostName string, flags ...string) *mutator {
	seed := uint64(os.Getpid())
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	m := &mutator{t: t, random: rand.New(rand.NewPCG(seed, 1)), wire: -1}
	m.p = start(t, write(t, config), append(flags, "--wire", wireName, "--host", hostName)...)
	m.host = listen(t, hostName)
	c, err := configs.Parse("test", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	sad := pipeline.NewSAD(c.Profile, 1)
	for _, s := range c.SAs {
		if _, err := sad.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	m.alone = pipeline.New(sad, pipeline.Options{Aside: true})
	mix := newMixer(t)
	for kind := range kinds {
		for _, size := range []int{8, 100, 1300} {
			m.seeds = append(m.seeds, mix.sample(kind, size).frame)
		}
	}
	road := sealer(t, sasOf(t, moreSAs+nattSA)["road"])
	for n := range uint64(6) {
		m.seeds = append(m.seeds, framed(sealed(t, road, plain(interior, n, 200))))
	}
	m.mergeable = len(m.seeds)
	m.seeds = append(m.seeds, superframe(road, t), framed(plain(server, 1, 1400)), tcpFrame(3000))
	for _, path := range []string{"../configs/layers.pcapng", "interop/linux/captures/headers.pcap", "interop/linux/captures/ah-esp.pcap",
		"interop/linux/captures/fragments.pcap", "interop/linux/captures/vlan.pcap", "interop/linux/captures/encap.pcap"} {
		m.seeds = append(m.seeds, captured(t, path)...)
	}
	return m
}

// superframe is several equally long datagrams of ESP as GRO makes one of them.
func superframe(s interface {
	Seal([]byte, []byte) ([]byte, error)
}, t *testing.T) (frame []byte) {
	for n := range uint64(8) {
		packet, err := s.Seal(nil, plain(interior, n, 200))
		if err != nil {
			t.Fatal(err)
		}
		if f := forge.AppendFrame(nil, packet); frame == nil {
			frame = f
		} else {
			frame = append(frame, f[14+28:]...)
		}
	}
	return relength(frame)
}

// relength has the IP header of a frame say how long it is.
func relength(frame []byte) []byte {
	binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
	binary.BigEndian.PutUint16(frame[24:], 0)
	binary.BigEndian.PutUint16(frame[24:], wire.Checksum(0, frame[14:34]))
	return frame
}

// tcpFrame is a TCP segment of so many bytes.
func tcpFrame(size int) []byte {
	f := forge.UDP(nil, netip.MustParseAddrPort(source), netip.MustParseAddrPort(server), make([]byte, size+12))
	f[9] = wire.ProtoTCP
	copy(f[20:], []byte{0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x18, 1, 0, 0, 0, 0, 0})
	return relength(framed(f))
}

func captured(t *testing.T, path string) (frames [][]byte) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := capture.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, _, err := r.Next()
		if err != nil {
			return frames
		}
		frames = append(frames, bytes.Clone(f))
	}
}

func (m *mutator) open(name string, mtu int) int {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		m.t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
		m.t.Fatal(err)
	}
	m.mtu = mtu
	return fd
}

func (m *mutator) pour(frames int) {
	for sent := 0; sent < frames; {
		var whole [][]byte
		merged := m.merged && m.random.IntN(3) == 0
		for m.room = 1 + m.random.IntN(room); m.room > 0; sent++ {
			seed := m.random.IntN(len(m.seeds))
			if merged && m.random.IntN(2) == 0 {
				seed = m.mergeable + m.random.IntN(3)
			}
			f := m.mutate(bytes.Clone(m.seeds[seed]))
			if merged {
				m.sendMerged(f)
				continue
			}
			if f = f[:min(len(f), m.mtu+14)]; !m.refusedByStack(f) && m.send(f) {
				whole = append(whole, f)
			}
		}
		m.compare(whole, m.sendFence(), merged)
	}
	m.t.Logf("%d frames came, %d were sent merged", m.ordinal, m.cut)
	m.p.stop()
}

// sendFence sends what tells that all before it has gone its way.
func (m *mutator) sendFence() []byte {
	m.t.Helper()
	m.fence++
	fence := append(bytes.Clone(ours), 0x88, 0xb5)
	fence = append(binary.BigEndian.AppendUint32(fence, m.fence), make([]byte, 50)...)
	if !m.send(fence) {
		m.t.Fatal("the fence cannot be sent")
	}
	return fence
}

// refusedByStack reports whether the kernel takes a frame from a veth's other end and throws it away: it takes tags
// off, and one is cut short.
func (m *mutator) refusedByStack(f []byte) bool {
	return m.merged && len(f) < 14+6 && (f[12] == 0x81 && f[13] == 0 || f[12] == 0x88 && f[13] == 0xa8)
}

// send sends a frame as it is, if the kernel takes it.
func (m *mutator) send(frame []byte) bool {
	m.room -= overhead + len(frame)
	return unix.Send(m.wire, append(make([]byte, segment.HeaderLen), frame...), 0) == nil
}

// sendMerged sends a frame with any virtio header, if the kernel takes it.
func (m *mutator) sendMerged(f []byte) {
	h := m.lie(f)
	const most = 60
	size := int(binary.NativeEndian.Uint16(h[4:]))
	f = f[:min(len(f), 100+most*size)]
	m.room -= overhead * (1 + len(f)/max(size, 1))
	if unix.Send(m.wire, append(h, f...), 0) == nil {
		m.cut++
	}
}

// compare receives what was sent, up to the fence.
func (m *mutator) compare(whole [][]byte, fence []byte, merged bool) {
	m.t.Helper()
	for {
		frame, err := m.host.Receive(patience)
		if err != nil {
			m.t.Fatalf("%v; %d to come\n%s", err, len(whole), m.p.stop())
		}
		body, got, err := status.Split(bytes.Clone(frame))
		if err != nil {
			m.t.Fatalf("%v:\n%x", err, frame)
		}
		if m.ordinal++; got.Ordinal != m.ordinal {
			m.t.Fatalf("frame %d after %d", got.Ordinal, m.ordinal-1)
		}
		if bytes.Equal(body, fence) {
			if len(whole) > 0 {
				m.t.Fatalf("%d frames are missing", len(whole))
			}
			return
		}
		if merged {
			continue
		}
		if len(whole) == 0 {
			m.t.Fatalf("a frame too many:\n%x", frame)
		}
		sent := whole[0]
		whole = whole[1:]
		wantBody, want, err := status.Split(m.alone.Process(append(make([]byte, 0, len(sent)+status.Tailroom), sent...)))
		if err != nil {
			m.t.Fatal(err)
		}
		got.Ordinal, got.Received = want.Ordinal, want.Received
		for i := range got.Records {
			got.Records[i].Handle = want.Records[i].Handle
		}
		if got != want || !bytes.Equal(body, wantBody) || int(got.WireLen) != len(sent) {
			m.t.Fatalf("sent\n%x\ncame\n%x\n%+v\nwant\n%x\n%+v", sent, body, got, wantBody, want)
		}
	}
}

// lie is a virtio header: that of what the frame could be, or any.
func (m *mutator) lie(frame []byte) []byte {
	h := make([]byte, segment.HeaderLen)
	order, r := binary.NativeEndian, m.random
	h[0] = byte(r.IntN(2))
	h[1] = []byte{0, 1, 3, 4, 5, 0x81, 0x84, 0x85}[r.IntN(8)]
	sizes := []int{1, 2, 7, 100, 236, 264, 535, 1400, 1448, 8000, 65535, r.IntN(1 << 16)}
	order.PutUint16(h[4:], uint16(sizes[r.IntN(len(sizes))]))
	order.PutUint16(h[2:], uint16([]int{0, 14, 34, 42, 54, 74, r.IntN(300), r.IntN(1 << 16)}[r.IntN(8)]))
	order.PutUint16(h[6:], uint16([]int{34, 38, 54, 0, 14, r.IntN(len(frame)), r.IntN(1 << 16)}[r.IntN(7)]))
	order.PutUint16(h[8:], uint16([]int{6, 16, 8, 0, r.IntN(100), r.IntN(1 << 16)}[r.IntN(6)]))
	if len(frame) > 34 && r.IntN(4) > 0 { // what the kernel takes, but for the size
		h[0], h[1] = needsSum, map[byte]byte{wire.ProtoTCP: 1, wire.ProtoUDP: 5}[frame[23]]
		order.PutUint16(h[6:], 34)
		order.PutUint16(h[8:], map[byte]uint16{wire.ProtoTCP: 16, wire.ProtoUDP: 6}[frame[23]])
	}
	return h
}

// mutate alters a frame once or several times.
func (m *mutator) mutate(f []byte) []byte {
	r := m.random
	for range r.IntN(4) {
		at := r.IntN(len(f))
		if r.IntN(2) == 0 {
			at = min(at, r.IntN(80))
		}
		switch r.IntN(9) {
		case 0:
			f[at] ^= 1 << r.IntN(8)
		case 1:
			f[at] = []byte{0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60, 50, 51, 4, 41, 17, 59}[r.IntN(13)]
		case 2:
			f = f[:max(14, at)]
		case 3:
			more := make([]byte, r.IntN(m.mtu))
			for i := range more {
				more[i] = byte(r.Uint32())
			}
			f = append(f, more...)
		case 4:
			tags := [][]byte{{0x81, 0, 0, 7}, {0x88, 0xa8, 0, 9}, {0x91, 0, 0, 1}}
			for range 1 + r.IntN(5) {
				f = slices.Insert(f, 12, tags[r.IntN(3)]...)
			}
		case 5:
			binary.BigEndian.PutUint16(f[12:], []uint16{0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 100, 0x8864, 0x88e7}[r.IntN(8)])
		case 6:
			if len(f) > 20 {
				binary.BigEndian.PutUint16(f[16:], []uint16{0, 1, 19, 20, 21, uint16(len(f)), uint16(len(f) - 14), 0xffff}[r.IntN(8)])
			}
		case 7:
			other := m.seeds[r.IntN(len(m.seeds))]
			f = append(f[:at], other[min(at, len(other)):]...)
		case 8:
			f = append(f, f[at:]...)
		}
		f = f[:max(14, min(len(f), 60000))]
		for len(f) < 14 {
			f = append(f, 0)
		}
	}
	return f
}
