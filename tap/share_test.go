package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// arrived is what came by each queue of an attached interface, in order, for as long as its workers live.
type arrived struct {
	mutex   sync.Mutex
	frames  [][][]byte // by queue
	running sync.WaitGroup
}

func (a *arrived) count() (n int) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, frames := range a.frames {
		n += len(frames)
	}
	return n
}

// share attaches to "shared", a veth whose other end is "sharer", with queues that are joined with those of
// a TAP. The veth hands on its frames on one core, for they would overtake each other on two.
func share(t *testing.T, how Options, queues int) (*Device, *arrived) {
	t.Helper()
	rig.Require(t)
	if err := CanSteer(); err != nil {
		rig.Missing(t, err.Error())
	}
	ip(t, "link add shared type veth peer name sharer")
	t.Cleanup(func() { netns.Delete("shared") })
	const first = "1"
	receiveOn(t, "shared", first)
	host := openTAP(t, Config{Name: "sharetap", Queues: queues})
	near, err := AttachQueues("shared", queues)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if err := errors.Join(near.Up(), netns.Up("sharer"), host.Up(), netns.Ready("shared", "sharer", "sharetap")); err != nil {
		t.Fatal(err)
	}
	how.Room, how.Tail = 1<<16+100, 64
	a := &arrived{frames: make([][][]byte, queues)}
	var workers []*Worker
	for queue := range queues {
		joined, err := Join(near, host, queue, how)
		if err != nil {
			t.Fatal(err)
		}
		workers = append(workers, joined...)
		for _, w := range joined {
			a.running.Go(func() { a.run(w, near, queue) })
		}
	}
	t.Cleanup(func() {
		for _, w := range workers {
			w.Stop()
		}
		a.running.Wait()
	})
	return near, a
}

func (a *arrived) run(w *Worker, near *Device, queue int) {
	for {
		d, frames, err := w.Next()
		if err != nil {
			return
		}
		if d.From() == near {
			a.mutex.Lock()
			for _, f := range frames {
				if !bytes.HasPrefix(f, []byte("\x33\x33")) { // the kernel's own
					a.frames[queue] = append(a.frames[queue], bytes.Clone(f))
				}
			}
			a.mutex.Unlock()
		}
		if d.Send(frames) != nil {
			return
		}
	}
}

// stream is frames that differ in their last four bytes alone, a number.
type stream struct {
	frame []byte
	queue int // by which they are to come; -1 where any one does
}

// flowsOf are flows of every shape that an SA's frames may have, and of others.
func flowsOf(queues int) map[string]stream {
	all := map[string]stream{
		"neither IPv4 nor IPv6": {bytes.Clone(header), 0},
		"too short":             {append(bytes.Clone(header[:12]), "\x08\x00\x45"...), 0},
		"no SPI":                {append(bytes.Clone(header[:12]), "\x08\x00\x45\x00\x00\x14\x00\x00\x00\x00\x09\x33\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x32\x04"...), 0},
	}
	for i := range uint32(8) {
		spi := i<<26 + i + 256
		for name, f := range shapes(spi) {
			by := stream{f, int(spi & 0xffff % uint32(queues))}
			if strings.Contains(name, "NAT-T") {
				by.queue = -1
			}
			all[fmt.Sprintf("%s, SPI %#x", name, spi)] = by
			if name == "ESP" {
				later := bytes.Clone(f)
				later[14+7] = 3
				all[fmt.Sprintf("fragment %#x", spi)] = stream{later, -1}
			}
		}
	}
	return all
}

// sendFlows sends a frame of each flow with that number. A veth whose other end is down has no room for
// it.
func sendFlows(t *testing.T, far *rig.Socket, flows map[string]stream, number int) {
	t.Helper()
	for name, f := range flows {
		if err := far.Send(binary.BigEndian.AppendUint32(bytes.Clone(f.frame), uint32(number))); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(name, err)
		}
	}
}

// check wants each flow's frames from one queue, in order and none twice, and returns by how many flows
// each queue was used. Frames are by no flow where they are not whole.
func (a *arrived) check(t *testing.T, flows map[string]stream, complete bool, count int) map[int]int {
	t.Helper()
	a.mutex.Lock()
	defer a.mutex.Unlock()
	byFrame, next, queues := map[string]string{}, map[string]uint32{}, map[string]int{}
	for name, f := range flows {
		byFrame[string(f.frame)] = name
	}
	for queue, frames := range a.frames {
		for _, f := range frames {
			front := len(f) - 4
			name, number := byFrame[string(f[:front])], binary.BigEndian.Uint32(f[front:])
			if was, known := queues[name]; known && was != queue || flows[name].queue >= 0 && flows[name].queue != queue || name == "" {
				t.Fatalf("%s: number %d by queue %d: %x", name, number, queue, f)
			}
			if number < next[name] || complete && number != next[name] {
				t.Fatalf("%s: number %d where %d was next", name, number, next[name])
			}
			queues[name], next[name] = queue, number+1
		}
	}
	used := map[int]int{}
	for name := range flows {
		if complete && next[name] != uint32(count) {
			t.Errorf("%s: %d frames of %d", name, next[name], count)
		}
		used[queues[name]]++
	}
	return used
}

// Contract, The system: each frame comes by one queue of an attached interface, an SA's all by the same
// one, whatever stands in front of the SPI, and in order. What has no SPI, or none that can be reached,
// comes as well.
func TestAttachedQueuesShareFrames(t *testing.T) { engines(t, testAttachedQueuesShareFrames) }

func testAttachedQueuesShareFrames(t *testing.T, how Options) {
	const queues, count = 3, 20
	near, got := share(t, how, queues)
	if now, _, err := near.Steer(SteerAuto); now != SteerSPI || err != nil {
		t.Error(now, err)
	}
	flows := flowsOf(queues)
	far := testkit.Listen(t, "sharer")
	for number := range count {
		sendFlows(t, far, flows, number)
	}
	await(t, "all frames", func() bool { return got.count() >= count*len(flows) })
	if used := got.check(t, flows, true, count); len(used) != queues {
		t.Errorf("flows by queue: %v", used)
	}
	if d, err := near.Drops(); err != nil || d.Tx != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}

// While the interface goes down and comes up frames are lost, but an SA's come by the same queue as
// before, none twice and none before one that was sent earlier.
func TestAttachedQueuesKeepOrderThroughFlaps(t *testing.T) {
	engines(t, testAttachedQueuesKeepOrderThroughFlaps)
}

func testAttachedQueuesKeepOrderThroughFlaps(t *testing.T, how Options) {
	const queues, flaps = 2, 15
	_, got := share(t, how, queues)
	flows, far := flowsOf(queues), testkit.Listen(t, "sharer")
	flapped := make(chan error, 1)
	go func() {
		var err error
		for range flaps {
			err = errors.Join(err, rig.Down("shared"), netns.Up("shared"))
		}
		flapped <- err
	}()
	count := 0
	for ; len(flapped) == 0; count++ {
		sendFlows(t, far, flows, count)
	}
	if err := <-flapped; err != nil {
		t.Fatal(err)
	}
	before := got.count()
	await(t, "frames of all flows after the last flap", func() bool {
		sendFlows(t, far, flows, count)
		count++
		return got.count() >= before+len(flows)
	})
	got.check(t, flows, false, count)
}

// Datagrams of two SAs in one merged frame keep their order with those that come alone.
func TestAttachedQueuesKeepMergedTogether(t *testing.T) {
	engines(t, testAttachedQueuesKeepMergedTogether)
}

func testAttachedQueuesKeepMergedTogether(t *testing.T, how Options) {
	const rounds, merged, size = 20, 8, 100
	_, got := share(t, how, 2)
	far := openOffload(t, "sharer")
	next := [2]uint32{}
	datagram := func(sa int) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(256+sa))
		next[sa]++
		return append(binary.BigEndian.AppendUint32(b, next[sa]), make([]byte, size-8)...)
	}
	for range rounds {
		for _, count := range []int{merged, 1} {
			var datagrams []byte
			for i := range count {
				datagrams = append(datagrams, datagram((i+count)%2)...)
			}
			f, start := inPacket(t, false, "", &layers.UDP{SrcPort: 4500, DstPort: 4500}, datagrams)
			if err := far.send(unix.VIRTIO_NET_HDR_GSO_UDP_L4, size, start, 6, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, "all datagrams", func() bool { return got.count() >= rounds*(merged+1) })
	got.mutex.Lock()
	defer got.mutex.Unlock()
	seen := [2]uint32{}
	for _, frames := range got.frames {
		for _, f := range frames {
			b := f[14+20+8:]
			sa, number := binary.BigEndian.Uint32(b)-256, binary.BigEndian.Uint32(b[4:])
			if seen[sa]++; number != seen[sa] || len(frames) != rounds*(merged+1) {
				t.Fatalf("SA %d: number %d where %d was next, with %d of %d frames by its queue", sa, number, seen[sa], len(frames), rounds*(merged+1))
			}
		}
	}
}
