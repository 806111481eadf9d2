package replay

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tapsec/sa"
)

// slowWindow is a window as RFC 4303 section 3.4.3 tells it: a set of all the
// numbers that ever passed.
type slowWindow struct {
	size, top     uint64
	unknown       uint64 // what lay below a window that another one was restored from
	passed        map[uint64]bool
	replays, late uint64
}

func newSlowWindow(size uint32) *slowWindow {
	return &slowWindow{size: uint64(size), passed: map[uint64]bool{}}
}

func (m *slowWindow) accept(seq uint64) bool {
	switch {
	case seq == 0, seq <= m.unknown, m.top >= m.size && seq <= m.top-m.size:
		m.late++
		return false
	case m.passed[seq]:
		m.replays++
		return false
	}
	m.passed[seq] = true
	m.top = max(m.top, seq)
	return true
}

func (m *slowWindow) resize(size uint32) {
	if m.top > m.size {
		m.unknown = max(m.unknown, m.top-m.size)
	}
	m.size = uint64(size)
}

func (m *slowWindow) refuse(n uint64) {
	if n >= m.top {
		m.top, m.passed = n, map[uint64]bool{}
	}
	m.unknown = max(m.unknown, n)
}

func (m *slowWindow) state() State {
	s := State{Size: uint32(m.size), Top: m.top, Seen: uint64(len(m.passed)), Replays: m.replays, Late: m.late}
	numbers := slices.Sorted(maps.Keys(m.passed))
	for i := 1; i < len(numbers); i++ {
		s.Gaps += numbers[i] - numbers[i-1] - 1
	}
	return s
}

// pair is a Window beside its model.
type pair struct {
	fast Window
	slow *slowWindow
}

func newPair(size uint32) *pair { return &pair{New(size), newSlowWindow(size)} }

func (p *pair) accept(t rapid.TB, seq uint64) {
	t.Helper()
	top, late := p.slow.top, p.slow.late
	refused, old := p.fast.Refuses(seq)
	got, want := p.fast.Accept(seq), p.slow.accept(seq)
	if got != want {
		t.Fatalf("size %d, top %#x: Accept(%#x) = %v", p.slow.size, top, seq, got)
	}
	if refused == want || old != (p.slow.late > late) {
		t.Fatalf("size %d, top %#x: Refuses(%#x) = %v, %v, Accept was %v", p.slow.size, top, seq, refused, old, want)
	}
}

// restart carries the window over into another one, by way of JSON.
func (p *pair) restart(t rapid.TB, size uint32) {
	t.Helper()
	text, err := json.Marshal(p.fast.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	p.fast = New(size)
	if err := p.fast.Restore(s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	p.slow.resize(size)
}

func (p *pair) compare(t rapid.TB) {
	t.Helper()
	if got, want := p.fast.State(), p.slow.state(); got != want {
		t.Fatalf("state %+v\nexpected %+v", got, want)
	}
}

var windowSizes = []uint32{32, 33, 63, 64, 65, 66, 127, 128, 129, 1000, 4096, 65535, 65536}

func drawSize(t *rapid.T) uint32 {
	if rapid.Bool().Draw(t, "any size") {
		return rapid.Uint32Range(sa.MinWindow, sa.MaxWindow).Draw(t, "size")
	}
	return rapid.SampledFrom(windowSizes).Draw(t, "size")
}

// drawRun draws the first of some numbers, how many there are and how far
// apart, from where mistakes live: the top and the lower end of the window,
// jumps by whole words and whole windows, 2^32, and the ends of 64 bits.
func drawRun(t *rapid.T, m *slowWindow) (first, n, step uint64) {
	n = rapid.SampledFrom([]uint64{1, 1, 1, 2, 15, 64, 130}).Draw(t, "n")
	step = rapid.SampledFrom([]uint64{1, 1, 2, 3, math.MaxUint64, 0}).Draw(t, "step")
	words := (m.size + 62) / 64
	base := rapid.SampledFrom([]uint64{
		m.top, m.top, m.top + 1, m.top - m.size, m.top + m.size, m.top - 64, m.top + 64, m.top + 64*words, m.top + 64*(words+1),
		m.top &^ 63, m.top + m.size/2, m.top - m.size/2, m.unknown, 0, m.top + 1<<31, m.top | math.MaxUint32, m.top + 1<<40,
	}).Draw(t, "base")
	return base + uint64(rapid.Int64Range(-3, 3).Draw(t, "off")), n, step
}

// Contract, The transport, step 3: the window does what a set of all numbers does,
// whatever comes, and goes on doing it after a restart with a window of any size,
// or where numbers are refused whether they came or not.
func TestWindowAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		p := newPair(size)
		start := rapid.SampledFrom([]uint64{1, 1, 2, 63, 64, uint64(size), 1 << 32, 1 << 63, math.MaxUint64}).Draw(t, "start")
		p.accept(t, start-uint64(rapid.Uint32Range(0, 2*size).Draw(t, "below")))
		for range rapid.IntRange(1, 40).Draw(t, "runs") {
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				p.restart(t, drawSize(t))
			}
			if rapid.IntRange(0, 9).Draw(t, "refuse") == 0 {
				n := p.slow.top - min(p.slow.top, 3) + rapid.Uint64Range(0, 6).Draw(t, "up to")
				p.fast.Refuse(n)
				p.slow.refuse(n)
			}
			first, n, step := drawRun(t, p.slow)
			for i := range n {
				p.accept(t, first+i*step)
			}
			p.compare(t)
		}
	})
}

// step is a number and whether it may pass.
type step struct {
	seq uint64
	ok  bool
}

func pass(seqs ...uint64) []step   { return steps(true, seqs) }
func refuse(seqs ...uint64) []step { return steps(false, seqs) }

func steps(ok bool, seqs []uint64) (all []step) {
	for _, seq := range seqs {
		all = append(all, step{seq, ok})
	}
	return all
}

// from gives n numbers from first on, by apart.
func from(first, n, by uint64) (seqs []uint64) {
	for i := range n {
		seqs = append(seqs, first+i*by)
	}
	return seqs
}

// Contract, The transport, step 3. Each corner is a mistake that others made or looked for.
func TestWindowCorners(t *testing.T) {
	const wrap, last = 1 << 32, math.MaxUint64
	for name, c := range map[string]struct {
		size  uint32
		steps [][]step
	}{
		// The size was taken in bytes: 4 packets instead of 32.
		"wireguard-lwip 4": {32, [][]step{pass(32), pass(from(1, 31, 1)...), refuse(from(1, 32, 1)...)}},
		// The first number of all was taken for a wrapped one.
		"wireguard-lwip 5": {64, [][]step{pass(1), refuse(1, 0)}},
		// The bit of the highest number was set in the wrong place, so that its
		// replay passed.
		"skywire 2612": {2048, [][]step{pass(7), refuse(7), pass(8), refuse(8), pass(72), refuse(72), pass(5000), refuse(5000)}},
		// The place of a late number was off by one.
		"libcoap 1939": {32, [][]step{pass(3, 5, 4), refuse(4, 5, 3)}},
		// A late number became the highest.
		"libcoap 1926": {32, [][]step{pass(10, 7), refuse(10, 7), pass(8, 9, 11)}},
		// A shift by the whole width of the word left the old bits.
		"KNX-IOT-STACK 761 by 32": {32, [][]step{pass(from(1, 32, 1)...), pass(64), refuse(32, 1), pass(from(33, 31, 1)...)}},
		"KNX-IOT-STACK 761 by 64": {64, [][]step{pass(from(1, 64, 1)...), pass(128), refuse(64, 1), pass(from(65, 63, 1)...)}},
		// DPDK's window is one packet wider than its size.
		"lower end":           {64, [][]step{pass(1000), refuse(1000 - 64), pass(1000 - 63), refuse(1000 - 63)}},
		"Snabb: wrap":         {128, [][]step{pass(wrap-1, wrap, wrap+1), refuse(wrap-1, wrap, wrap+1)}},
		"Snabb: below":        {128, [][]step{pass(wrap + 129), refuse(wrap, wrap+1), pass(wrap + 2)}},
		"Snabb: even, odd":    {128, [][]step{pass(from(2, 7, 2)...), refuse(2), pass(1), refuse(from(2, 7, 2)...), pass(from(3, 7, 2)...)}},
		"Snabb: at the wrap":  {128, [][]step{pass(from(wrap-6, 7, 2)...), pass(from(wrap-5, 7, 2)...), refuse(from(wrap-6, 14, 1)...)}},
		"Snabb: far past":     {128, [][]step{pass(1<<34 + 42), refuse(wrap + 43)}},
		"Snabb: far future":   {128, [][]step{pass(1<<34+42, 1<<36+25), refuse(1<<34+42, 1<<36+25), pass(1<<36 + 24)}},
		"Snabb: massive loss": {128, [][]step{pass(1, 3*wrap+25), refuse(43, 1), pass(3*wrap+24, 3*wrap+25-127), refuse(3*wrap + 25 - 128)}},
		"loss of a window":    {64, [][]step{pass(from(1, 64, 1)...), pass(129), refuse(64, 65), pass(66, 128), refuse(129)}},
		// The lower end must not be computed as seq+size, nor top+1 be 0.
		"end of 64 bits":   {64, [][]step{pass(last-64, last), refuse(last-64, last, 0, 1), pass(last-1, last-63), refuse(last - 63)}},
		"two ends":         {65536, [][]step{pass(1, last), refuse(1, 2, last), pass(last - 65535), refuse(last - 65536)}},
		"0 always refused": {64, [][]step{refuse(0), pass(1), refuse(0), pass(1 << 32), refuse(0), pass(last), refuse(0)}},
		// A word that comes into use again must be empty, one ring or many later.
		"words come again": {65, [][]step{pass(from(1, 256, 1)...), pass(from(600, 256, 1)...), pass(1 << 20), pass(from(1<<20-64, 64, 1)...)}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(c.size)
			for i, s := range slices.Concat(c.steps...) {
				if got := p.slow.accept(s.seq); got != s.ok {
					t.Errorf("step %d: the model says %v for %#x", i, got, s.seq)
				}
				if got := p.fast.Accept(s.seq); got != s.ok {
					t.Errorf("step %d: Accept(%#x) = %v", i, s.seq, got)
				}
			}
			p.compare(t)
		})
	}
}

// Every number of a full window is remembered, wherever in a word it begins,
// whether it came before the highest or after it.
func TestWindowRemembersAllOfItself(t *testing.T) {
	for _, size := range []uint32{32, 33, 63, 64, 65, 66, 67, 130, 258, 1000} {
		for start := uint64(1); start < 130; start++ {
			numbers := from(start, uint64(size), 1)
			late := slices.Concat(numbers[size-1:], numbers[:size-1])
			for _, order := range [][]uint64{numbers, late} {
				w := New(size)
				for _, want := range []bool{true, false} {
					for _, seq := range order {
						if w.Accept(seq) != want {
							t.Fatalf("size %d from %d: Accept(%d) = %v", size, start, seq, !want)
						}
					}
				}
			}
		}
	}
}

// A size that was never set protects as well (free5gc 992, netlink 803: there
// zero turned the protection off).
func TestWindowIsNeverOffByAccident(t *testing.T) {
	var zero Window
	for name, w := range map[string]*Window{"zero Window": &zero, "New(0)": new(New(0))} {
		p := &pair{*w, newSlowWindow(64)}
		for _, seq := range slices.Concat(from(64, 1, 0), from(1, 64, 1), from(200, 1, 0), from(130, 80, 1)) {
			p.accept(t, seq)
		}
		p.compare(t)
		if p.fast.State().Off {
			t.Error(name, "says that it is off")
		}
	}
	for _, size := range []uint32{1, 31, 65537, math.MaxUint32} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.HasPrefix(said, "replay: ") {
					t.Errorf("panic: %s", said)
				}
			}()
			New(size)
		})
	}
}

// Off, said aloud: everything passes but 0, and State tells.
func TestNoWindow(t *testing.T) {
	w := Off()
	for _, s := range slices.Concat(pass(5, 5, 1, 5, 1<<40, 1), refuse(0), pass(2, 1<<40)) {
		if w.Accept(s.seq) != s.ok {
			t.Errorf("Accept(%d) = %v", s.seq, !s.ok)
		}
	}
	if got, want := w.State(), (State{Off: true, Top: 1 << 40, Seen: 8, Late: 1}); got != want {
		t.Errorf("%+v", got)
	}
	// What it let pass it does not remember, so a window in its place refuses it all.
	var on Window
	if err := on.Restore(w.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Concat(refuse(0, 1, 5, 1<<40-1, 1<<40), pass(1<<40+1), refuse(1<<40+1), pass(1<<40+3)) {
		if on.Accept(s.seq) != s.ok {
			t.Errorf("restored: Accept(%d) = %v", s.seq, !s.ok)
		}
	}
	if got, want := on.State(), (State{Size: 64, Top: 1<<40 + 3, Seen: 2, Gaps: 1, Replays: 1, Late: 6}); got != want {
		t.Errorf("%+v", got)
	}
	for name, old := range map[string]Window{"off": w, "on": on} {
		off := Off()
		if err := off.Restore(old.Snapshot()); err != nil {
			t.Fatal(err)
		}
		for _, s := range slices.Concat(refuse(0), pass(5, 1<<40, 1<<40+3)) {
			if off.Accept(s.seq) != s.ok {
				t.Errorf("from %s: Accept(%d) = %v", name, s.seq, !s.ok)
			}
		}
		if got, was := off.State(), old.State(); !got.Off || got.Seen != was.Seen+3 || got.Late != was.Late+1 || got.Replays != was.Replays {
			t.Errorf("from %s: %+v, was %+v", name, got, was)
		}
	}
}

// A window of another size never lets a number through again.
func TestWindowResized(t *testing.T) {
	for _, size := range []uint32{32, 64, 65, 100, 101, 4096} {
		p := newPair(100)
		for _, seq := range append(from(101, 60, 2), 1<<32) {
			p.accept(t, seq)
		}
		for seq := uint64(1<<32 - 99); seq < 1<<32; seq += 3 {
			p.accept(t, seq)
		}
		p.restart(t, size)
		for _, seq := range slices.Concat(from(1<<32-300, 310, 1), from(101, 60, 1)) {
			p.accept(t, seq)
		}
		p.compare(t)
	}
}

func TestSnapshotText(t *testing.T) {
	w := New(32)
	for _, seq := range []uint64{1, 3, 40, 40, 39, 5} {
		w.Accept(seq)
	}
	text, err := json.Marshal(w.Snapshot())
	want := `{"size":32,"floor":8,"low":1,"top":40,"seen":4,"replays":1,"late":1,"bits":"AAAAwA=="}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

// What no window can have come to is refused.
func TestSnapshotRefused(t *testing.T) {
	w := New(64)
	for _, seq := range append(from(10, 100, 1), 200) {
		w.Accept(seq)
	}
	if s := w.Snapshot(); s.Check() != nil {
		t.Fatal(s.Check())
	}
	for name, spoil := range map[string]func(s *Snapshot){
		"empty":                  func(s *Snapshot) { *s = Snapshot{} },
		"no size":                func(s *Snapshot) { s.Size = 0 },
		"size too small":         func(s *Snapshot) { s.Size = 31 },
		"size too large":         func(s *Snapshot) { s.Size = 65537 },
		"off with bits":          func(s *Snapshot) { s.Off = true },
		"off, lowest too high":   func(s *Snapshot) { *s = Snapshot{Off: true, Low: 10, Top: 9, Seen: 3} },
		"off and nothing lowest": func(s *Snapshot) { *s = Snapshot{Off: true, Top: 9, Seen: 3} },
		"lowest above highest":   func(s *Snapshot) { s.Low = 201 },
		"no lowest":              func(s *Snapshot) { s.Low = 0 },
		"none accepted":          func(s *Snapshot) { s.Seen = 0 },
		"none and no lowest":     func(s *Snapshot) { s.Seen, s.Low = 0, 0 },
		"floor above top":        func(s *Snapshot) { s.Floor = 201 },
		"floor at top":           func(s *Snapshot) { s.Floor, s.Bits = 200, nil },
		"more numbers than size": func(s *Snapshot) {
			*s = Snapshot{Size: 32, Low: 40, Top: 40, Seen: 1, Bits: []byte{0, 0, 0, 0, 0x80}}
		},
		"bits cut off":            func(s *Snapshot) { s.Bits = s.Bits[1:] },
		"bits missing":            func(s *Snapshot) { s.Bits = nil },
		"bits surplus":            func(s *Snapshot) { s.Bits = append(s.Bits, 0) },
		"bit above top":           func(s *Snapshot) { *s = Snapshot{Size: 64, Low: 8, Top: 9, Seen: 2, Bits: []byte{0, 3}} },
		"top not marked":          func(s *Snapshot) { s.Bits[7] = 0 },
		"more seen than numbers":  func(s *Snapshot) { s.Seen = 192 },
		"fewer seen than marked":  func(s *Snapshot) { s.Bits[0], s.Seen = 0xff, 2 },
		"more seen than marked":   func(s *Snapshot) { *s = Snapshot{Size: 64, Low: 1, Top: 9, Seen: 3, Bits: []byte{1, 1}} },
		"top beyond 64 bits' end": func(s *Snapshot) { s.Floor, s.Low, s.Top = 0, 1, math.MaxUint64 },
	} {
		s := w.Snapshot()
		if spoil(&s); s.Check() == nil {
			t.Errorf("%s: %+v was accepted", name, s)
		}
		var fresh Window
		if fresh.Restore(s) == nil || fresh.State() != (State{Size: 64}) {
			t.Errorf("%s: restored", name)
		}
	}
}

// A window of 65 packets or fewer has all its memory in itself; a larger one has as many words as
// its numbers can touch, rounded up to a power of two.
func TestWindowMemory(t *testing.T) {
	for size, want := range map[uint32]int{32: 0, 64: 0, 65: 0, 66: 4, 193: 4, 194: 8, 65536: 2048} {
		if w := New(size); len(w.ring) != want {
			t.Errorf("%d packets: %d words, want %d", size, len(w.ring), want)
		}
	}
}

func TestAcceptDoesNotAllocate(t *testing.T) {
	for _, size := range []uint32{0, 64, 66, 65536} {
		w, seq := New(size), uint64(1)
		if n := testing.AllocsPerRun(1000, func() {
			w.Accept(seq)
			w.Accept(seq)
			seq += seq/3 + 1
			w.State()
		}); n != 0 {
			t.Errorf("size %d: %v allocations", size, n)
		}
	}
}

// FuzzWindow reads a size, and then per three bytes one number, relative to the
// top or to either end of all numbers.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 32, 0, 0, 5, 0, 0, 3, 1, 0, 2, 0, 0, 3})
	f.Add([]byte{0xff, 0xff, 3, 0xff, 0xff, 2, 0xff, 0xff, 1, 0, 64, 4, 0, 100, 3, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 2 {
			return
		}
		size := sa.MinWindow + uint32(binary.BigEndian.Uint16(data))%(sa.MaxWindow-sa.MinWindow+1)
		p := newPair(size)
		for data = data[2:]; len(data) >= 3; data = data[3:] {
			by := uint64(binary.BigEndian.Uint16(data[1:]))
			switch data[0] % 6 {
			case 0:
				p.accept(t, p.slow.top+by)
			case 1:
				p.accept(t, p.slow.top-by)
			case 2:
				p.accept(t, p.slow.top-uint64(size)+by%5-2)
			case 3:
				p.accept(t, by-0x8000) // either end
			case 4:
				p.accept(t, p.slow.top+by<<24)
			case 5:
				p.restart(t, sa.MinWindow+uint32(by)%(sa.MaxWindow-sa.MinWindow+1))
				size = uint32(p.slow.size)
			}
		}
		p.compare(t)
	})
}

// FuzzSnapshot restores whatever decodes and makes sense: it must come out as
// it went in.
func FuzzSnapshot(f *testing.F) {
	for _, seqs := range [][]uint64{nil, {1}, {1, 3, 40, 39}, {1 << 33, math.MaxUint64}} {
		w := New(40)
		for _, seq := range seqs {
			w.Accept(seq)
		}
		text, _ := json.Marshal(w.Snapshot())
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Snapshot
		if json.Unmarshal(text, &s) != nil || s.Check() != nil {
			return
		}
		w := Off()
		if !s.Off {
			w = New(s.Size)
		}
		if err := w.Restore(s); err != nil {
			t.Fatal(err)
		}
		if back, _ := json.Marshal(w.Snapshot()); string(back) != marshal(s) {
			t.Fatalf("%s became %s", marshal(s), back)
		}
		w.Accept(s.Top + 1)
		w.Accept(s.Low)
	})
}

func marshal(s Snapshot) string {
	if !s.Off && s.Bits == nil {
		s.Bits = []byte{} // null reads as no bits too
	} else if s.Off {
		s.Bits = nil
	}
	text, _ := json.Marshal(s)
	return string(text)
}

func BenchmarkAccept(b *testing.B) {
	for _, size := range []uint32{64, 1024, 65536} {
		for name, number := range map[string]func(i uint64) uint64{
			"in order":  func(i uint64) uint64 { return i },
			"reordered": func(i uint64) uint64 { return i ^ 7 },
			"replay":    func(i uint64) uint64 { return 1 },
			"far ahead": func(i uint64) uint64 { return i << 20 },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				w, i := New(size), uint64(1)
				for b.Loop() {
					w.Accept(number(i))
					i++
				}
			})
		}
	}
}
