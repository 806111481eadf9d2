package live_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tapsec/internal/explain"
	"tapsec/internal/lab/forge"
	"tapsec/internal/live"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/test/testkit"
)

func site() *sa.SA {
	s := &sa.SA{Name: "site", Protocol: sa.ESP, Mode: sa.Tunnel, SPI: 0x1001, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")}
	testkit.Suite("aes128gcm16")(s)
	return s
}

// bed is a NIC of some queues, whose frames lie in memory that is used again at once.
type bed struct {
	tap    *live.Tap
	sad    *pipeline.SAD
	stages []*live.Stage
	frames [][]byte // as they come: each payload begins with its number
	left   [][]byte // as they are delivered, without their trailers
}

func newBed(t testing.TB, queues, frames, size int) *bed {
	t.Helper()
	b := &bed{tap: live.New(queues), sad: pipeline.NewSAD(full(), queues+1)}
	if _, err := b.sad.Add(site()); err != nil {
		t.Fatal(err)
	}
	for q := range queues {
		b.stages = append(b.stages, b.tap.Stage(q, pipeline.New(b.sad, pipeline.Options{Worker: q, Queue: uint16(q)})))
	}
	sealer, err := outbound.NewSealer(nil, site())
	if err != nil {
		t.Fatal(err)
	}
	clear := pipeline.New(b.sad, pipeline.Options{Worker: queues, Aside: true})
	for i := range frames {
		payload := binary.BigEndian.AppendUint64(nil, uint64(i))
		payload = append(payload, make([]byte, max(0, size-len(payload)))...)
		packet, err := sealer.Seal(nil, forge.UDP(nil, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), payload))
		if err != nil {
			t.Fatal(err)
		}
		frame := forge.AppendFrame(nil, packet)
		if i%3 == 2 {
			frame[len(frame)-1] ^= 1
		}
		b.frames = append(b.frames, frame)
		body, _, err := status.Split(clear.Process(bytes.Clone(frame)))
		if err != nil {
			t.Fatal(err)
		}
		b.left = append(b.left, body)
	}
	return b
}

func full() sa.Profile {
	p, err := sa.ProfileByName("full")
	if err != nil {
		panic(err)
	}
	return p
}

// run has a queue receive all frames in turn, so many times, in slots as an engine has them.
func (b *bed) run(queue, rounds int) {
	var slots [tap.Batch][2048]byte
	for range rounds {
		for first := 0; first < len(b.frames); first += tap.Batch {
			var batch [][]byte
			for i, f := range b.frames[first:min(first+tap.Batch, len(b.frames))] {
				n := copy(slots[i][:], f)
				batch = append(batch, slots[i][:n])
			}
			b.stages[queue].Batch(batch)
			for i := range slots {
				clear(slots[i][:]) // the next frames
			}
		}
	}
}

// await waits until there are so many readers.
func (b *bed) await(many int) {
	for readers := 0; readers < many; readers, _, _ = b.tap.Counts() {
		time.Sleep(time.Millisecond)
	}
}

// check looks at a pair: it must be the frame of its number, before and after.
func (b *bed) check(t *testing.T, p *live.Pair) {
	t.Helper()
	n := int((p.Trailer.Ordinal - 1) % uint64(len(b.frames)))
	if !bytes.Equal(p.Came, b.frames[n]) || !bytes.Equal(p.Left, b.left[n]) {
		t.Fatalf("frame %d came as\n%x, left as\n%x, want\n%x and\n%x", p.Trailer.Ordinal, p.Came, p.Left, b.frames[n], b.left[n])
	}
	if failed := n%3 == 2; failed != (p.Trailer.Reason == status.ESPICV) {
		t.Fatalf("frame %d: %s", p.Trailer.Ordinal, p.Trailer.Reason)
	}
}

func all(*status.Trailer) bool { return true }

// Readers come and go beside the workers. What each gets are whole frames, in the order of
// their queue, and what is missing in it is counted.
func TestReaders(t *testing.T) {
	const queues, rounds = 2, 60
	b := newBed(t, queues, 500, 100)
	var workers, reading sync.WaitGroup
	ctx, ended := context.WithCancel(t.Context())
	for i := range 4 {
		reading.Go(func() {
			for ctx.Err() == nil {
				b.read(t, ctx, i%2 == 0, 5000)
			}
		})
	}
	b.await(4)
	for q := range queues {
		workers.Go(func() { b.run(q, rounds) })
	}
	workers.Wait()
	ended()
	reading.Wait()
	if readers, taken, _ := b.tap.Counts(); readers != 0 || taken == 0 {
		t.Errorf("%d readers, %d frames", readers, taken)
	}
}

// read reads up to a number of frames, slowly or not.
func (b *bed) read(t *testing.T, ctx context.Context, slowly bool, most uint64) {
	r := b.tap.Open(all)
	defer r.Close()
	var p live.Pair
	last := map[uint16]uint64{}
	taken := uint64(0)
	for taken < most {
		if !r.Next(&p) {
			if r.Wait(ctx) != nil {
				return
			}
			continue
		}
		taken++
		b.check(t, &p)
		q := p.Trailer.Queue
		if before, known := last[q]; known && p.Trailer.Ordinal != before+1+p.Lost {
			t.Errorf("frame %d of queue %d behind %d, and %d are said to be lost", p.Trailer.Ordinal, q, before, p.Lost)
		}
		last[q] = p.Trailer.Ordinal
		if slowly && taken%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// A reader that does not read holds nobody up, and all that it has no room for is counted.
func TestStuck(t *testing.T) {
	b := newBed(t, 1, 300, 1400)
	r := b.tap.Open(all)
	defer r.Close()
	b.run(0, 40)
	counts, taken, last := r.Counts(), uint64(0), uint64(0)
	var p live.Pair
	for r.Next(&p) {
		b.check(t, &p)
		taken++
		last = p.Trailer.Ordinal
	}
	if counts.Received != 300*40 || counts.Accepted != counts.Received || taken+counts.Lost != counts.Accepted || counts.Lost == 0 || last != taken {
		t.Errorf("%+v, and %d taken, up to frame %d", counts, taken, last)
	}
	b.run(0, 1) // there is room again
	if !r.Next(&p) || p.Trailer.Ordinal != counts.Received+1 || p.Lost != counts.Lost {
		t.Errorf("frame %d follows %d, behind %d lost of %d", p.Trailer.Ordinal, last, p.Lost, counts.Lost)
	}
	if again := r.Counts(); again.Lost != counts.Lost {
		t.Errorf("then %+v", again)
	}
}

// Neither with readers nor without does a worker allocate.
func TestAllocations(t *testing.T) {
	b := newBed(t, 1, 1, 1400)
	slot := make([]byte, 2048)
	batch := make([][]byte, 1)
	run := func() {
		batch[0] = slot[:copy(slot, b.frames[0])]
		b.stages[0].Batch(batch)
	}
	run()
	for _, readers := range []int{0, 1, 2} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%d readers: %.1f allocations", readers, n)
		}
		defer b.tap.Open(all).Close()
		run() // a worker's first copy makes its memory
	}
}

// BenchmarkStage measures a batch of frames of 1400 bytes through the pipeline: as it is, as
// a stage that nobody reads, with one reader that takes all, and one that is stuck.
func BenchmarkStage(b *testing.B) {
	bench := func(name string, begin func(*bed) (batch func([][]byte) [][]byte, end func())) {
		b.Run(name, func(b *testing.B) {
			bed := newBed(b, 1, tap.Batch, 1400-36-29) // 1400 bytes of ESP
			batch, end := begin(bed)
			defer end()
			slots := make([][]byte, tap.Batch)
			for i := range slots {
				slots[i] = make([]byte, 2048)
			}
			frames := make([][]byte, tap.Batch)
			b.ReportAllocs()
			for b.Loop() {
				for i, f := range bed.frames {
					frames[i] = slots[i][:copy(slots[i], f)]
				}
				batch(frames)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tap.Batch, "ns/frame")
		})
	}
	bench("pipeline", func(bed *bed) (func([][]byte) [][]byte, func()) {
		return pipeline.New(bed.sad, pipeline.Options{}).Batch, func() {}
	})
	bench("nobody", func(bed *bed) (func([][]byte) [][]byte, func()) { return bed.stages[0].Batch, func() {} })
	bench("reader", func(bed *bed) (func([][]byte) [][]byte, func()) {
		r := bed.tap.Open(all)
		ctx, stop := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() {
			for p := (live.Pair{}); r.Wait(ctx) == nil; {
				for r.Next(&p) {
				}
			}
		})
		return bed.stages[0].Batch, func() { stop(); done.Wait(); r.Close() }
	})
	bench("stuck", func(bed *bed) (func([][]byte) [][]byte, func()) {
		r := bed.tap.Open(all)
		return bed.stages[0].Batch, r.Close
	})
}

// Captures and traces go on while SAs come and go. What a trace says of a frame is what the
// NIC said, or it says that the SAs have changed since.
func TestBesideChanges(t *testing.T) {
	const queues = 2
	b := newBed(t, queues, 300, 100)
	nic := live.NIC{Tap: b.tap, SAD: b.sad, Aside: queues, Wire: "w", Host: "h"}
	var workers, reading, changing sync.WaitGroup
	ctx, ended := context.WithCancel(t.Context())
	var traced, captured bytes.Buffer
	for _, one := range []struct {
		view func(live.Request) (live.View, error)
		to   *bytes.Buffer
	}{{nic.Trace, &traced}, {nic.Capture, &captured}} {
		view, err := one.view(live.Request{})
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			if err := view(ctx, one.to, func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	b.await(2)
	b.run(0, 1) // with the SA, however the rest falls between its comings and goings
	changing.Go(func() {
		for ctx.Err() == nil {
			if err := b.sad.Delete(b.sad.Handle(site().ID())); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
			if _, err := b.sad.Add(site()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for q := range queues {
		workers.Go(func() { b.run(q, 8) })
	}
	workers.Wait()
	ended()
	reading.Wait()
	changing.Wait()
	reasons := map[string]int{}
	for line := range bytes.Lines(traced.Bytes()) {
		var one explain.Traced
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatal(err)
		}
		reasons[one.Reason]++
	}
	if reasons["nic/verified"] == 0 || reasons["nic/esp-icv"] == 0 || captured.Len() == 0 {
		t.Errorf("traced %v, captured %d bytes", reasons, captured.Len())
	}
}

// What is asked beside the frames leaves no trace: neither counts nor numbers of an SA change.
func TestAside(t *testing.T) {
	long := site()
	long.ESN = true
	sad := pipeline.NewSAD(full(), 2)
	if _, err := sad.Add(long); err != nil {
		t.Fatal(err)
	}
	sealer, err := outbound.NewSealer(nil, long)
	if err != nil {
		t.Fatal(err)
	}
	aside := pipeline.New(sad, pipeline.Options{Worker: 1, Aside: true})
	for i := range 4 {
		packet, err := sealer.Seal(nil, forge.UDP(nil, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), make([]byte, 64)))
		if err != nil {
			t.Fatal(err)
		}
		frame := forge.AppendFrame(nil, packet)
		if i%2 == 1 {
			frame[len(frame)-1] ^= 1
		}
		_, found := aside.Check(frame)
		if failed := found.Reason != status.Verified; failed != (i%2 == 1) {
			t.Errorf("frame %d: %s", i, found.Reason)
		}
	}
	if held := sad.List()[0]; held.Top != 0 || held.Failed != 0 {
		t.Errorf("afterwards: number %d, %d failed", held.Top, held.Failed)
	}
}
