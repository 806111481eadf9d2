package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
)

// model answers a ring in the kernel's place, from the queues that the two share. What it does it
// chooses by a script; at its end it does all that is asked, at once and in order.
//
// It carries entries out in the order in which they come, those behind a failed one that they are linked
// to not at all, and tells what became of each whenever it likes and in any order. Until then it has the
// memory that it was given: a write's bytes must still be there, and a read's arrive only then.
type model struct {
	ring    *ring
	script  []byte
	hostile bool // answers what cannot be
	mute    bool // answers nothing
	faults  []unix.Errno

	head    uint32 // of the submissions
	linked  bool   // the entry before asks the next one to wait
	failed  bool   // and it, or one before it in the chain, has failed
	pending []answer
	calls   int
	silent  int // calls in a row that told nothing
	polls   []uint64
	reads   [2]uint64 // multishot reads under way, by port
	buffers [2]uint16 // how many of the provided ones were taken, by port
	left    [2]int    // frames that have not been read yet, by port
	sent    [2]int    // and those that were
	wire    [2][]int  // numbers of those written, in order
	wrong   error     // what the ring must not do
}

// answer is a completion that is still to be told.
type answer struct {
	completion
	memory []byte       // of a write or read
	parts  []unix.Iovec // of a write whose memory is in several places
	frame  []byte       // what it must hold, or shall
}

// choose returns a number below limit, 0 at the script's end.
func (m *model) choose(limit int) int {
	if len(m.script) == 0 {
		return 0
	}
	b := m.script[0]
	m.script = m.script[1:]
	return int(b) % limit
}

func (m *model) call(submit, wait, _, _, _ uintptr) unix.Errno {
	if m.calls++; m.calls > 1e5 {
		panic("the ring goes on for ever")
	}
	take := uint32(submit)
	if m.choose(16) == 1 { // there is no memory for more
		take = uint32(m.choose(int(submit) + 1))
	}
	u := m.ring.uring
	for range take {
		m.begin(u.sqes[m.head&u.sqMask])
		m.head++
	}
	m.linked = false
	atomic.StoreUint32(u.sqHead, m.head)
	switch {
	case take == 0 && submit > 0:
		return []unix.Errno{0, unix.EAGAIN, unix.ENOMEM}[m.choose(3)]
	case take < uint32(submit):
		return 0
	}
	if m.mute {
		m.ring.stop()
		time.Sleep(time.Duration(u.timeout.Nano()))
		return 0
	}
	told := *u.cqTail
	m.feed()
	late := m.choose(8) * m.choose(8)
	if m.silent++; m.silent > 1 {
		late = 0
	}
	for n := len(m.pending) - late; n > 0 && len(m.pending) > 0; n-- {
		i := m.choose(len(m.pending))
		if m.pending[i].data>>56 == ofRead { // those are told in order
			i = slices.IndexFunc(m.pending, func(a answer) bool { return a.data>>56 == ofRead })
		}
		m.tell(m.pending[i])
		m.pending = slices.Delete(m.pending, i, i+1)
	}
	if m.hostile && m.choose(4) == 1 {
		m.lie()
	}
	if *u.cqTail != told {
		m.silent = 0
	} else if wait > 0 {
		time.Sleep(max(time.Duration(u.timeout.Nano())/time.Duration(1+m.choose(3)), time.Microsecond))
	}
	return 0
}

// memoryAt is what an entry's address points to.
func memoryAt(address *uint64, length uint32) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(address)), length)
}

// begin carries an entry out.
func (m *model) begin(e submission) {
	chained := m.linked
	m.linked = e.flags&sqeLink != 0
	m.failed = m.failed && chained
	port := int(e.data >> 48 & 0xff)
	memory := memoryAt(&e.address, e.length)
	switch e.op {
	case opWrite, opWritev:
		a := answer{completion: completion{data: e.data}, memory: memory}
		if e.op == opWritev {
			a.memory, a.parts = nil, unsafe.Slice(*(**unix.Iovec)(unsafe.Pointer(&e.address)), e.length)
		}
		a.frame = bytes.Clone(a.bytes())
		a.result = int32(len(a.frame))
		number, frame := 0, a.frame[min(len(a.frame), m.prefix()):]
		if len(frame) >= 16 {
			number = int(binary.BigEndian.Uint16(frame[14:]))
		}
		switch fault := m.choose(8); {
		case m.failed:
			a.result = -int32(unix.ECANCELED)
		case fault == 1:
			a.result = -int32(m.faults[m.choose(len(m.faults))])
			m.failed = true
		default:
			m.wire[port] = append(m.wire[port], number)
		}
		m.pending = append(m.pending, a)
	case opRead:
		a := answer{completion: completion{data: e.data, result: -int32(unix.EAGAIN)}, memory: memory}
		if m.left[port] > 0 && m.choose(4) != 1 {
			a.frame = m.read(port)
			a.result = int32(len(a.frame))
		}
		m.pending = append(m.pending, a)
	case opReadMultishot:
		m.reads[port] = e.data
	case opPollAdd:
		m.polls = append(m.polls, e.data)
	case opAsyncCancel:
		m.cancel(e.data)
	}
}

func (m *model) cancel(data uint64) {
	for _, d := range append(m.polls, m.reads[:]...) {
		if d != 0 {
			m.pending = append(m.pending, answer{completion: completion{data: d, result: -int32(unix.ECANCELED)}})
		}
	}
	m.polls, m.reads = nil, [2]uint64{}
	m.pending = append(m.pending, answer{completion: completion{data: data, result: 1}})
}

// bytes are those that a write is of.
func (a *answer) bytes() []byte {
	if a.parts == nil {
		return a.memory
	}
	var all []byte
	for _, p := range a.parts {
		all = append(all, unsafe.Slice(p.Base, p.Len)...)
	}
	return all
}

// prefix is the length of what stands in front of each frame.
func (m *model) prefix() int { return m.ring.ports[0].direction.from.prefix() }

// read is the next frame that comes by a port.
func (m *model) read(port int) []byte {
	f := append(make([]byte, m.prefix()), modelFrame(port, m.sent[port])...)
	m.left[port]--
	m.sent[port]++
	return f
}

func modelFrame(port, number int) []byte {
	f := frame(number, 60+number%40)
	f[16] = byte(port)
	return f
}

// feed has frames come by the multishot reads and wakes polls; when all have come it stops the ring.
func (m *model) feed() {
	for port, data := range m.reads {
		for more := 1 + m.choose(40); data != 0 && more > 0 && m.left[port] > 0; more-- {
			feed := m.ring.ports[port].reader.feed.(*multishot)
			if m.buffers[port] == feed.provided {
				m.pending = append(m.pending, answer{completion: completion{data: data, result: -int32(unix.ENOBUFS)}})
				m.reads[port], data = 0, 0
				break
			}
			b := feed.buffers[m.buffers[port]%slotCount]
			m.buffers[port]++
			a := answer{completion: completion{data: data, flags: cqeBuffer | cqeMore | uint32(b.number)<<cqeBufferBit}, frame: m.read(port)}
			a.memory = memoryAt(&b.address, b.length)
			a.result = int32(len(a.frame))
			m.tell(a) // a multishot read's are told in order
		}
	}
	if m.left == [2]int{} && !m.ring.stopped.Load() {
		m.ring.stop()
	}
	for i := 0; i < len(m.polls); i++ {
		data := m.polls[i]
		if data>>56 == ofAlarm && m.ring.stopped.Load() || data>>56 == ofPoll && m.left[data>>48&0xff] > 0 {
			m.pending = append(m.pending, answer{completion: completion{data: data, result: unix.POLLIN}})
			m.polls = slices.Delete(m.polls, i, i+1)
			i--
		}
	}
}

// tell completes an entry.
func (m *model) tell(a answer) {
	switch {
	case a.data>>56 == ofWrite && !bytes.Equal(a.bytes(), a.frame):
		m.wrong = fmt.Errorf("a write's memory was used again: %x, was %x", a.bytes(), a.frame)
	case a.data>>56 == ofRead:
		copy(a.memory, a.frame)
	}
	m.complete(a.completion)
}

func (m *model) complete(c completion) {
	u := m.ring.uring
	tail := *u.cqTail
	u.cqes[tail&u.cqMask] = c
	atomic.StoreUint32(u.cqTail, tail+1)
}

// lie tells what no kernel would: of an entry that there is or there is not, or never was.
func (m *model) lie() {
	c := completion{result: []int32{0, 1, 60, 1 << 30, -1 << 31, -int32(unix.EAGAIN), -int32(unix.EPERM)}[m.choose(7)], flags: uint32(m.choose(4))}
	c.flags |= uint32(m.choose(256)) << cqeBufferBit
	c.data = tag(m.choose(7), m.choose(3), m.ring.ports[0].writer.batch-uint32(m.choose(2)), m.choose(256))
	if m.choose(3) == 1 && len(m.pending) > 0 {
		c.data = m.pending[m.choose(len(m.pending))].data
	}
	m.complete(c)
}

// how the model's ring is made.
type modelled struct {
	single, hostile, mute bool
	virtio                bool // a header in front of each frame
	frames                int
	device                *Device
}

// modelDevice is one of which only the existence matters.
func modelDevice(t testing.TB) *Device {
	t.Helper()
	rig.Require(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &Device{name: "null", queues: []*os.File{f}}
}

// run moves frames in both directions through a ring that the model answers, and returns both after the
// ring's end.
func (o modelled) run(t *testing.T, script []byte) (m *model, why error) {
	t.Helper()
	d := o.device
	if o.virtio {
		d = &Device{name: d.name, queues: d.queues, virtio: true, merging: AllMerging}
	}
	how := Options{Room: 100, SingleReads: o.single}
	directions := []*Direction{newDirection(d, d, 0, how), newDirection(d, d, 0, how)}
	r, err := newRing(directions, how)
	if err != nil {
		rig.Missing(t, "needs a ring: "+err.Error())
	}
	m = &model{ring: r, script: script, hostile: o.hostile, mute: o.mute, left: [2]int{o.frames, o.frames},
		faults: []unix.Errno{unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EINTR, unix.EIO, unix.ENETDOWN, unix.EMSGSIZE, unix.EINVAL}}
	r.uring.call = m.call
	w := newWorker(r, directions...)
	for {
		to, frames, err := w.Next()
		if err != nil {
			why = err
			break
		}
		for _, f := range frames {
			port := slices.Index(directions, to)
			if o.hostile {
				continue // it says that frames came which did not
			}
			if number := int(binary.BigEndian.Uint16(f[14:])); !bytes.Equal(f, modelFrame(port, number)) {
				t.Errorf("frame %d came as %x", number, f)
			}
		}
		to.Send(frames) // what it returns, Next does
	}
	for _, d := range directions {
		if c := d.Tally(); int64(c.In) != int64(c.Out+c.HostDown+c.TooLong+c.Refused)+c.Kept {
			t.Errorf("not conserved: %+v", c)
		}
	}
	return m, why
}

// Contract, The system: whatever of a batch fails, and whenever and in whatever order the kernel says so, each
// frame is counted once, none is written twice, and none overtakes another.
func TestModel(t *testing.T) {
	device := modelDevice(t)
	for seed := range uint64(400) {
		o := modelled{single: seed&1 != 0, virtio: seed%3 == 0, frames: 400, device: device}
		r := rand.New(rand.NewPCG(seed, 0))
		script := make([]byte, r.IntN(20000))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		synctest.Test(t, func(t *testing.T) {
			m, why := o.run(t, script)
			if !errors.Is(why, ErrStopped) || m.wrong != nil {
				t.Errorf("%v, %v", why, m.wrong)
			}
			for port, wire := range m.wire {
				c := m.ring.ports[port].direction.Tally()
				if int(c.Out) != len(wire) || c.In != 400 {
					t.Errorf("%d frames were written: %+v", len(wire), c)
				}
				if err := m.ordered(port); err != nil {
					t.Error(err)
				}
			}
		})
		if t.Failed() {
			t.Fatalf("%+v, seed %d", o, seed)
		}
	}
}

// ordered looks at the order of what was written.
func (m *model) ordered(port int) error {
	seen, highest := map[int]bool{}, -1
	for _, number := range m.wire[port] {
		if seen[number] {
			return fmt.Errorf("frame %d was written twice", number)
		}
		if seen[number] = true; number < highest {
			return fmt.Errorf("frame %d was written after frame %d", number, highest)
		}
		highest = number
	}
	return nil
}

// No answer of a kernel, however wrong, makes a ring panic or hang, or lose count.
func FuzzAnswers(f *testing.F) {
	device := modelDevice(f)
	f.Add(byte(0), []byte("\x00\x01"))
	f.Add(byte(5), bytes.Repeat([]byte{1, 3, 9, 77, 200}, 200))
	f.Fuzz(func(t *testing.T, how byte, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			modelled{single: how&1 != 0, virtio: how&2 != 0, hostile: true, frames: 200, device: device}.run(t, script)
		})
		forget()
	})
}

// forget lets go of what the model has nothing of.
func forget() {
	for _, what := range abandoned.all {
		if memory, ok := what.([]byte); ok {
			unix.Munmap(memory)
		}
	}
	abandoned.all = nil
}

// Hostile answers end the ring with a sentence that names the interface or the ring.
func TestHostileAnswers(t *testing.T) {
	ended, device := map[bool]int{}, modelDevice(t)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 4000)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		synctest.Test(t, func(t *testing.T) {
			_, why := modelled{single: seed&1 != 0, virtio: seed%3 == 0, hostile: true, frames: 400, device: device}.run(t, script)
			ended[errors.Is(why, ErrStopped)]++
		})
	}
	forget()
	if ended[false] < 200 {
		t.Errorf("%d of 300 lying kernels were noticed", ended[false])
	}
}

// A kernel that answers no more does not keep a ring from ending, which leaves it the memory that it has.
func TestMuteKernel(t *testing.T) {
	device := modelDevice(t)
	defer forget()
	synctest.Test(t, func(t *testing.T) {
		o, before := modelled{frames: 10, device: device}, len(abandoned.all)
		if _, why := o.run(t, nil); !errors.Is(why, ErrStopped) || len(abandoned.all) != before {
			t.Errorf("%v, %d abandoned", why, len(abandoned.all)-before)
		}
		o.mute = true
		began := time.Now()
		m, why := o.run(t, nil)
		if took := time.Since(began); !errors.Is(why, ErrStopped) || took > lastPatience+2*heartbeat {
			t.Errorf("%v after %v", why, took)
		}
		for i, p := range m.ring.ports {
			if !p.underWay() {
				t.Fatalf("port %d reads nothing", i)
			}
			b := p.reader.feed.(*multishot).buffers[0]
			copy(memoryAt(&b.address, b.length), "still there")
		}
	})
}

// Every order in which the answers of a small batch can come, with every frame written, refused or lost.
func TestEveryOrder(t *testing.T) {
	const count = 4
	results := []int32{60, -int32(unix.EAGAIN), -int32(unix.EIO)}
	for order := range permutations(count) {
		for outcome := range 3 * 3 * 3 * 3 {
			for _, linked := range []bool{false, true} { // as the kernel has it, or as if it had forgotten that
				w := &writer{direction: &Direction{to: &Device{name: "b"}}, stride: Batch,
					uring: &uring{sqes: make([]submission, 64), sqMask: 63}}
				for i := range count {
					w.rest = append(w.rest, parcels(frame(i, 60))...)
				}
				w.queue()
				var c [count]int32
				failed := false
				var want []int
				for i, o := 0, outcome; i < count; i, o = i+1, o/3 {
					if c[i] = results[o%3]; linked && failed {
						c[i] = -int32(unix.ECANCELED)
					}
					failed = failed || c[i] < 0
					if refused := c[i] == results[1] || c[i] == -int32(unix.ECANCELED); refused {
						want = append(want, i)
					}
				}
				for _, slot := range order {
					if err := w.answered(completion{result: c[slot]}, 1, slot); err != nil {
						t.Fatal(err)
					}
					if err := w.answered(completion{result: c[slot]}, 1, slot); err == nil {
						t.Fatal("an answer counted twice")
					}
				}
				var left []int
				for _, p := range w.rest {
					f := unsafe.Slice(p.parts[0].Base, p.length)
					left = append(left, int(binary.BigEndian.Uint16(f[14:])))
				}
				n := w.direction.tally
				if !slices.Equal(left, want) || int(n.Out+n.HostDown)+len(left) != count || w.open != 0 {
					t.Fatalf("linked %v, answers %v in order %v: %v is left, want %v; %+v", linked, c, order, left, want, n)
				}
			}
		}
	}
}

// parcels are frames as they are written to an ordinary interface.
func parcels(frames ...[]byte) []parcel {
	var p packer
	return p.pack(frames)
}

// permutations are all orders of the numbers below n.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		var next func(p []int) bool
		next = func(p []int) bool {
			if len(p) == n {
				return yield(p)
			}
			for i := range n {
				if !slices.Contains(p, i) && !next(append(slices.Clone(p), i)) {
					return false
				}
			}
			return true
		}
		next(nil)
	}
}

// What the kernel cannot have answered, and a write that was cut short, end the ring with one sentence.
func TestAnswersThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		result int32
		batch  uint32
		slot   int
		want   string
	}{
		"another batch": {60, 2, 0, "frame 0 of batch 2"},
		"no such slot":  {60, 1, Batch + 7, fmt.Sprintf("frame %d of batch 1", Batch+7)},
		"cut short":     {10, 1, 0, "10 bytes of a frame that has 60"},
		"too long":      {61, 1, 0, "61 bytes of a frame that has 60"},
		"no errno":      {-1 << 31, 1, 0, "write to b"},
	} {
		w := &writer{direction: &Direction{to: &Device{name: "b"}}, stride: Batch,
			uring: &uring{sqes: make([]submission, 64), sqMask: 63}, rest: parcels(frame(0, 60))}
		w.queue()
		err := w.answered(completion{result: c.result}, c.batch, c.slot)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is given up in the middle of a batch is what is not settled.
func TestGivingUpCountsEachFrameOnce(t *testing.T) {
	d := &Direction{to: &Device{name: "b"}}
	p := &ringPort{direction: d, reader: reader{direction: d}, writer: writer{direction: d, stride: 3, uring: &uring{sqes: make([]submission, 64), sqMask: 63}}}
	for i := range 4 {
		p.writer.rest = append(p.writer.rest, parcels(frame(i, 60))...)
	}
	p.writer.queue()
	if err := p.writer.answered(completion{result: 60}, 1, 1); err != nil {
		t.Fatal(err)
	}
	if p.giveUp(); d.tally.Out != 1 || d.tally.HostDown != 3 {
		t.Errorf("%+v", d.tally)
	}
}

// The same as TestAnswersThatCannotBe for reads, by either feed.
func TestReadsThatCannotBe(t *testing.T) {
	const some = cqeBuffer | cqeMore
	for name, c := range map[string]struct {
		single bool
		completion
		index int
		want  string
	}{
		"no buffer":       {false, completion{result: 60, flags: cqeMore}, 0, "60 bytes for slot -1"},
		"no such buffer":  {false, completion{result: 60, flags: some | slotCount<<cqeBufferBit}, 0, fmt.Sprintf("slot %d, which it was not given", slotCount)},
		"buffer in line":  {false, completion{result: 60, flags: some | 7<<cqeBufferBit}, 0, "slot 7, which it was not given"},
		"nothing":         {false, completion{result: 0, flags: some}, 0, "0 bytes for slot 0"},
		"too much":        {false, completion{result: 102, flags: some}, 0, "102 bytes for slot 0, which has room for 101"},
		"no such slot":    {true, completion{result: 60}, slotCount, fmt.Sprintf("slot %d, which it was not given", slotCount)},
		"slot in line":    {true, completion{result: 60}, 7, "slot 7, which it was not given"},
		"nothing, single": {true, completion{result: 0}, 0, "0 bytes for slot 0"},
		"no poll":         {true, completion{data: tag(ofPoll, 0, 0, 0)}, 0, "a poll"},
	} {
		r := &reader{direction: &Direction{from: &Device{name: "a"}, room: 100}}
		r.slots = r.direction.slots(make([]byte, slotCount*r.direction.slotSize()))
		if r.feed = (&multishot{reader: r, reading: true, buffers: make([]buffer, slotCount)}); c.single {
			r.feed = &singles{reader: r, reads: slotCount}
		}
		for i := range r.places {
			r.places[i] = given
		}
		r.places[7] = filled
		err := r.answered(c.completion, c.index)
		if c.data != 0 {
			err = r.woken()
		}
		if err == nil || !strings.Contains(err.Error(), "read from a: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if r.filled > 0 {
			t.Errorf("%s: a frame came of it", name)
		}
	}
}

// A refusal ends after the time that decision 6 gives it, or never.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusal
		attached, tap := &Device{outs: []*os.File{os.Stdout}}, &Device{}
		last := func(errno error, d *Device) time.Duration {
			for began := time.Now(); ; time.Sleep(r.left()) {
				if took := time.Since(began); r.again(errno, d, -1) || took > time.Hour {
					return took
				}
			}
		}
		for want := longestPatience; want > leastPatience; want /= 2 {
			if took := last(unix.ENOBUFS, attached); took < want || took > want+longestPause {
				t.Errorf("given up after %v, want %v", took, want)
			}
			r.over() // the next is taken at once
		}
		if took := last(unix.ENOBUFS, attached); took > 2*leastPatience {
			t.Errorf("given up after %v, want %v", took, leastPatience)
		}
		r.again(unix.ENOBUFS, attached, -1)
		r.over() // the next is taken after all
		if took := last(unix.ENOBUFS, attached); took < longestPatience {
			t.Errorf("given up after %v although the interface was busy", took)
		}
		for _, d := range []*Device{attached, tap} {
			if took := last(unix.EAGAIN, d); took < time.Hour {
				t.Errorf("a full buffer was given up after %v", took)
			}
		}
		if took := last(unix.ENOBUFS, tap); took < time.Hour {
			t.Errorf("a TAP without memory was given up after %v", took)
		}
	})
}
