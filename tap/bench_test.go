package tap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

// queued is how many frames wait before they are moved: fewer than a TAP's queue holds.
const queued = 15 * Batch

// mover is one way to move frames that wait in a TAP's queue.
type mover struct {
	name string
	in   *rig.Socket
	move func(count int) error
	took []float64 // ns of the processor for a frame, by round
}

// BenchmarkDrain moves frames that are queued already from one TAP to another, in random order by
// bare reads and writes of the TAP library's file, by the plain engine and by the ring. It reports
// the processor's time for a frame: the median of all rounds, and the quartiles around it.
//
//	go test ./tap -run '^$' -bench Drain -benchtime 100x
func BenchmarkDrain(b *testing.B) {
	for _, size := range []int{64, 512, 1400, 9000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) { benchmarkDrain(b, size) })
	}
}

func benchmarkDrain(b *testing.B, size int) {
	movers := []*mover{bare(b), byEngine(b, "plain", Options{Engine: Plain}), byEngine(b, "ring", Options{Engine: Ring}),
		byEngine(b, "single", Options{Engine: Ring, SingleReads: true})}
	for b.Loop() {
		for _, i := range rand.Perm(len(movers)) {
			if err := movers[i].round(size); err != nil {
				b.Fatal(err)
			}
		}
	}
	report(b, movers)
}

func report(b *testing.B, movers []*mover) {
	for _, m := range movers {
		slices.Sort(m.took)
		n := len(m.took)
		b.ReportMetric(m.took[n/2], m.name+"-ns")
		b.ReportMetric(m.took[n/4], m.name+"-q1")
		b.ReportMetric(m.took[3*n/4], m.name+"-q3")
	}
}

// BenchmarkCall is what the kernel takes for a call that does nothing.
func BenchmarkCall(b *testing.B) {
	for b.Loop() {
		unix.Getppid()
	}
}

func (m *mover) round(size int) error {
	for i := range queued {
		if err := m.in.Send(frame(i, size)); err != nil {
			return err
		}
	}
	before := processTime()
	if err := m.move(queued); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	m.took = append(m.took, float64(processTime()-before)/queued)
	return nil
}

// ends opens two TAPs for one mover.
func ends(b *testing.B, name string) (from, to *Device, in *rig.Socket) {
	from, to = openTAP(b, Config{Name: name + "a", MTU: 9000}), openTAP(b, Config{Name: name + "b", MTU: 9000})
	for _, d := range []*Device{from, to} {
		if err := netns.Up(d.name); err != nil {
			b.Fatal(err)
		}
	}
	if err := netns.Ready(from.name, to.name); err != nil {
		b.Fatal(err)
	}
	return from, to, testkit.Listen(b, from.name)
}

func bare(b *testing.B) *mover {
	from, to, in := ends(b, "bare")
	buf := make([]byte, 9018)
	return &mover{name: "bare", in: in, move: func(count int) error {
		for range count {
			n, err := from.queues[0].Read(buf)
			if err == nil {
				_, err = to.queues[0].Write(buf[:n])
			}
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

func byEngine(b *testing.B, name string, how Options) *mover {
	from, to, in := ends(b, name)
	return moving(link(b, how, from, to, 9018, 64), name, in)
}

func moving(l *single, name string, in *rig.Socket) *mover {
	return &mover{name: name, in: in, move: func(count int) error {
		for moved := 0; moved < count; {
			frames, err := l.Receive()
			if err != nil {
				return err
			}
			moved += len(frames)
			if err := l.Direction.Send(frames); err != nil {
				return err
			}
		}
		if r, ok := l.Worker.engine.(*ring); ok {
			if err := r.flush(); err != nil {
				return err
			}
		}
		if t := l.Tally(); t.In != t.Out {
			return fmt.Errorf("%+v: %w", t, os.ErrInvalid)
		}
		return nil
	}}
}

// BenchmarkDrainAttached moves frames from one attached veth to another, in random order by each engine.
//
//	go test ./tap -run '^$' -bench DrainAttached -benchtime 100x
func BenchmarkDrainAttached(b *testing.B) {
	for _, size := range []int{64, 512, 1400} {
		b.Run(strconv.Itoa(size), func(b *testing.B) { benchmarkDrainAttached(b, size) })
	}
}

func benchmarkDrainAttached(b *testing.B, size int) {
	movers := []*mover{byAttached(b, "plain", Options{Engine: Plain}), byAttached(b, "ring", Options{Engine: Ring})}
	if CanSendDirect() == nil {
		movers = append(movers, byAttached(b, "direct", Options{Engine: Direct}))
	}
	if CanRedirect() == nil {
		movers = append(movers, byAttached(b, "xdp", Options{Engine: XDP}))
	}
	for b.Loop() {
		for _, i := range rand.Perm(len(movers)) {
			if err := movers[i].round(size); err != nil {
				b.Fatal(err)
			}
		}
	}
	report(b, movers)
}

func byAttached(b *testing.B, name string, how Options) *mover {
	var ends [2]*Device
	for i, side := range []string{"a", "b"} {
		near, far := name+side, name+side+"-far"
		ip(b, "link add "+near+" type veth peer name "+far)
		b.Cleanup(func() { netns.Delete(near) })
		err := errors.Join(netns.Up(near), netns.Up(far), netns.Ready(near, far))
		if err == nil {
			ends[i], err = Attach(near)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ends[i].Close() })
	}
	return moving(link(b, how, ends[0], ends[1], 1522, 64), name, testkit.Listen(b, name+"a-far"))
}
