package account_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/account"
	"tapsec/internal/replay"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

var here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

// kinds of frames.
const (
	good = iota
	failed
	padFailed
	fragment
	cut
	kinds
)

// frame is one of an SA's.
func frame(handle uint32, kind int, number uint64) *account.Frame {
	rec := status.Record{Protocol: uint8(sa.ESP), Handle: handle, Number: number, Portion: status.TransportPortion}
	f := &account.Frame{Trailer: &status.Trailer{}, Src: here, Dst: there}
	switch kind {
	case good:
		rec.State, rec.Reason = status.ICVValid, status.Verified
	case failed:
		rec.State, rec.Reason = status.FailedBefore, status.ESPICV
	case padFailed:
		rec.State, rec.Reason = status.FailedAfter, status.PadBytes
	case fragment:
		rec.State, rec.Reason = status.NotProcessed, status.Fragment
	case cut:
		rec.State, rec.Reason = status.FailedBefore, status.IPLength
		f.Cut = true
	}
	f.Trailer.Add(rec)
	return f
}

func stray(spi sa.SPI, src netip.Addr, number uint32) *account.Frame {
	return &account.Frame{Trailer: &status.Trailer{}, Src: src, Dst: there,
		Unmatched: true, Header: account.Header{Protocol: sa.ESP, SPI: spi, Src: src, Dst: there}, Number: number, HeaderIsNumbered: true}
}

func held(handle, window uint32) pipeline.Holding {
	return pipeline.Holding{SA: &sa.SA{Name: fmt.Sprint("sa", handle), Protocol: sa.ESP, SPI: 0x1000 + handle, Src: here, Dst: there, Window: window}, Handle: handle}
}

// model is the account of one SA, slow and obvious.
type model struct {
	came, failing []uint64
	marks         []account.Marks
	proven        bool
	refused       func(uint64) bool
	row           account.Row
}

func (m *model) add(kind int, number uint64) {
	var marks account.Marks
	late := number > 0 && number < slices.Max(append(m.came, 0)) && !slices.Contains(m.came, number)
	switch kind {
	case good, padFailed:
		m.proven = true
		marks = account.Marks{Late: late, Replayed: m.refused(number)}
		if marks.Replayed {
			m.row.Replayed++
		}
	case failed:
		m.failing = append(m.failing, number)
		m.marks = append(m.marks, marks)
		return
	}
	if slices.Contains(m.came, number) {
		m.row.Duplicates++
	}
	if late {
		m.row.Late++
		m.row.MaxLate = max(m.row.MaxLate, slices.Max(m.came)-number)
	}
	m.came = append(m.came, number)
	m.marks = append(m.marks, marks)
}

// lost counts the numbers between the lowest and the highest that are nowhere.
func (m *model) lost() (n uint64) {
	if len(m.came) == 0 {
		return 0
	}
	all := append(slices.Clone(m.came), m.failing...)
	slices.Sort(all)
	all = slices.Compact(all)
	low, high := slices.Min(m.came), slices.Max(m.came)
	all = slices.DeleteFunc(all, func(n uint64) bool { return n < low || n > high })
	return high - low + 1 - uint64(len(all))
}

// naiveWindow is RFC 4303 section 3.4.3 with all that was ever seen.
func naiveWindow(size uint64) func(uint64) bool {
	var seen []uint64
	return func(n uint64) bool {
		top := slices.Max(append(seen, 0))
		if n == 0 || top >= size && n <= top-size || slices.Contains(seen, n) {
			return true
		}
		seen = append(seen, n)
		return false
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.SampledFrom([]uint32{32, 64, 1000, 4096}).Draw(t, "window")
		a := account.New([]pipeline.Holding{held(1, window)})
		m := &model{refused: naiveWindow(uint64(window))}
		at := rapid.SampledFrom([]uint64{0, 1, 1000, 1<<32 - 50, 1 << 40}).Draw(t, "start")
		for range rapid.IntRange(1, 300).Draw(t, "frames") {
			number := at
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			default:
				at++
				number = at
			case 3: // gaps, over pages too
				at += rapid.Uint64Range(2, 3000).Draw(t, "gap")
				number = at
			case 4, 5: // back
				number -= min(at, rapid.Uint64Range(0, 2500).Draw(t, "back"))
			}
			kind := max(0, rapid.IntRange(-8, kinds-1).Draw(t, "kind"))
			if number == 0 && kind != good && kind != padFailed {
				continue // stands for a number that is not there
			}
			marks := a.Frame(frame(1, kind, number))
			if m.add(kind, number); marks != m.marks[len(m.marks)-1] {
				t.Fatalf("number %d: %+v, want %+v", number, marks, m.marks[len(m.marks)-1])
			}
		}
		rows, _ := a.Rows()
		if len(m.came) == 0 || !m.proven || len(rows) != 1 {
			return
		}
		got, want := rows[0], m.row
		if got.Lost != m.lost() || got.Duplicates != want.Duplicates || got.Late != want.Late || got.MaxLate != want.MaxLate ||
			got.Replayed != want.Replayed || !got.Exact || got.FirstSeq != fmt.Sprint(slices.Min(m.came)) || got.LastSeq != fmt.Sprint(slices.Max(m.came)) {
			t.Fatalf("%+v\nwant %+v, lost %d", got, want, m.lost())
		}
		smallest(t, m.came, got.SmallestWindow)
	})
}

// smallest checks that the transport's own window of that size loses no fresh number,
// and one that is smaller does.
func smallest(t *rapid.T, came []uint64, size uint64) {
	loses := func(size uint64) bool {
		w := replay.New(uint32(size))
		for i, n := range came {
			if fresh := n > 0 && !slices.Contains(came[:i], n); fresh && !w.Accept(n) {
				return true
			}
		}
		return false
	}
	if size >= sa.MinWindow && size <= sa.MaxWindow && loses(size) {
		t.Fatalf("a window of %d packets loses fresh numbers", size)
	}
	if size > sa.MinWindow && size <= sa.MaxWindow && !loses(size-1) {
		t.Fatalf("a window of %d packets would do, not %d", size-1, size)
	}
}

// What fails counts by reason; where no key fits at all, its numbers are all there is.
func TestNothingVerifies(t *testing.T) {
	a := account.New([]pipeline.Holding{held(1, 0)})
	for _, n := range []uint64{5, 6, 9, 8, 8} {
		a.Frame(frame(1, failed, n))
	}
	rows, _ := a.Rows()
	r := rows[0]
	if r.Good != 0 || r.Failed["esp-icv"] != 5 || r.Authentic || r.FirstSeq != "5" || r.LastSeq != "9" ||
		r.Lost != 1 || r.Duplicates != 1 || r.Late != 1 || r.SmallestWindow != 2 || r.Replayed != 0 {
		t.Errorf("%+v", r)
	}
}

// What came of the frames, by kind.
func TestOutcomes(t *testing.T) {
	a := account.New([]pipeline.Holding{held(1, 0)})
	for n, kind := range []int{good, good, failed, padFailed, fragment, fragment, cut, cut, cut} {
		a.Frame(frame(1, kind, uint64(n+1)))
	}
	rows, _ := a.Rows()
	if r := rows[0]; r.Good != 2 || r.Failed["esp-icv"] != 1 || r.Failed["pad-bytes"] != 1 || len(r.Failed) != 2 || r.LeftAlone != 2 || r.NotJudged != 3 {
		t.Errorf("%+v", r)
	}
}

// A forged number is no loss of all those before it.
func TestForged(t *testing.T) {
	a := account.New([]pipeline.Holding{held(1, 0)})
	for n := range uint64(10) {
		a.Frame(frame(1, good, n+1))
	}
	a.Frame(frame(1, failed, 1<<32-1))
	rows, _ := a.Rows()
	if r := rows[0]; r.Lost != 0 || r.LastSeq != "10" {
		t.Errorf("%+v", r)
	}
}

// Nor is that of an ESP behind an AH that failed, which nobody has tried.
func TestNotTried(t *testing.T) {
	a := account.New([]pipeline.Holding{held(1, 0)})
	a.Frame(frame(1, good, 1))
	f := frame(1, fragment, 1<<32-1)
	f.Trailer.Records[0].Reason = status.NotTried
	a.Frame(f)
	rows, _ := a.Rows()
	if r := rows[0]; r.Lost != 0 || r.LastSeq != "1" || r.LeftAlone != 1 {
		t.Errorf("%+v", r)
	}
}

// The numbers of an SA that nobody knows are completed as they wrap.
func TestUnknownWraps(t *testing.T) {
	a := account.New(nil)
	for i := range uint32(20) {
		a.Frame(stray(7, here, ^uint32(0)-9+i))
	}
	rows, _ := a.Rows()
	r := rows[0]
	if r.SA != "" || r.SPI != "0x00000007" || r.LeftAlone != 20 || r.FirstSeq != "4294967286" || r.LastSeq != "4294967305" || r.Wraps != 1 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
}

// A million headers that nobody knows stay within the memory that is promised, and
// are all counted; those that send much are followed to the end.
func TestManyUnknown(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := account.New(nil)
	const many, pages = 1 << 20, 1 << 17
	for i := range uint32(many) {
		src := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		a.Frame(stray(sa.SPI(i+1000), src, 1))
		if i < pages {
			a.Frame(stray(sa.SPI(i+1000), src, 3000)) // outside of a run
		}
		if i%10 == 0 {
			a.Frame(stray(7, here, i/10+1))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 96<<20 {
		t.Errorf("%d MB", grown>>20)
	}
	rows, others := a.Rows()
	frames := others.Frames
	for _, r := range rows {
		frames += r.LeftAlone
		if r.SPI == "0x00000007" && (r.LeftAlone != (many+9)/10 || r.Lost != 0) {
			t.Errorf("%+v", r)
		}
	}
	if len(rows) > account.MaxUnknown || frames != many+pages+(many+9)/10 || others.Headers+uint64(len(rows)) != many+1 {
		t.Errorf("%d rows, %d frames, %+v", len(rows), frames, others)
	}
}

// An SA with more gaps than can be remembered says that its counts are near.
func TestTooManyGaps(t *testing.T) {
	a := account.New([]pipeline.Holding{held(1, 0), held(2, 0)})
	const pages = 1<<18 + 1000
	for i := range uint64(pages) {
		a.Frame(frame(1, good, 1+2048*i))
	}
	a.Frame(frame(1, good, 1+2048*(pages-1)))
	a.Frame(frame(1, good, 1+2048*5)) // forgotten: nobody can tell
	a.Frame(frame(2, good, 1))
	a.Frame(frame(2, good, 2))
	rows, _ := a.Rows()
	if r := rows[0]; r.Exact || r.Duplicates != 2 || r.Late != 0 || r.Lost != 2047*(pages-1) {
		t.Errorf("%+v", r)
	}
	if r := rows[1]; !r.Exact || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
}

// heldSAs are eight SAs between the same hosts; 5 has another mode, 6 another selector, and 7 and 8 have reqids.
func heldSAs() (all []pipeline.Holding) {
	for handle := range uint32(8) {
		all = append(all, held(handle+1, 0))
	}
	all[4].Mode = sa.Transport
	all[5].Selector = &sa.Selector{Protocol: 17}
	all[6].ReqID, all[7].ReqID = 1, 2
	return all
}

// A new SPI takes over where the old one ends, known or not.
func TestRekeys(t *testing.T) {
	for name, c := range map[string]struct {
		frames string // a digit is a frame of that SA; 9 is one that nobody knows
		want   map[string]string
	}{
		"one after the other":     {"1111222", map[string]string{"sa1": "sa2"}},
		"a late one":              {"1111212222", map[string]string{"sa1": "sa2"}},
		"side by side":            {"12121212", nil},
		"one frame tells nothing": {"12222", nil},
		"the old one goes on":     {"111122111", nil},
		"the new one ends first":  {"1111111121", nil},
		"twice":                   {"111222333", map[string]string{"sa1": "sa2", "sa2": "sa3"}},
		"two pairs":               {"12121232323232343434", map[string]string{"sa1": "sa3", "sa2": "sa4"}},
		"to one that nobody has":  {"111199999", map[string]string{"sa1": "0x00000999"}},
		"to another mode":         {"11115555", nil},
		"to another selector":     {"11116666", nil},
		"to another reqid":        {"77778888", nil},
		"to a first reqid":        {"11118888", map[string]string{"sa1": "sa8"}},
		"after two others":        {"1123111111111777232", map[string]string{"sa1": "sa7"}},
		"after four others":       {"11234811111111117772348", nil}, // more than are remembered
	} {
		a := account.New(heldSAs())
		for i, digit := range c.frames {
			if digit == '9' {
				a.Frame(stray(0x999, here, uint32(i)))
			} else {
				a.Frame(frame(uint32(digit-'0'), good, uint64(i+1)))
			}
		}
		got := map[string]string{}
		rows, _ := a.Rows()
		for _, r := range rows {
			if r.RekeyedTo != "" {
				got[r.SA] = r.RekeyedTo
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) && (len(got) > 0 || c.want != nil) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Rows are in the order of first frames, known or not.
func TestRowsInOrder(t *testing.T) {
	a := account.New(heldSAs())
	want := []string{"esp 0x00001007", "esp 0x00000999", "esp 0x00001003", "esp 0x00001001", "esp 0x00000998", "esp 0x00001008", "esp 0x00001002"}
	for i, f := range []*account.Frame{frame(7, good, 1), stray(0x999, here, 1), frame(3, failed, 1), frame(1, cut, 1), stray(0x998, there, 1),
		frame(8, fragment, 1), frame(7, good, 2), frame(2, good, 1), frame(3, good, 2)} {
		f.Trailer.Ordinal = uint64(i)
		a.Frame(f)
	}
	rows, _ := a.Rows()
	var got []string
	for _, r := range rows {
		got = append(got, r.Protocol+" "+r.SPI)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Silent SAs are named.
func TestSilent(t *testing.T) {
	a := account.New([]pipeline.Holding{held(2, 0), held(1, 0)})
	a.Frame(frame(2, good, 1))
	if got := a.Silent(); !slices.Equal(got, []string{"sa1"}) {
		t.Error(got)
	}
}

func BenchmarkFrame(b *testing.B) {
	a := account.New([]pipeline.Holding{held(1, 0)})
	f := frame(1, good, 0)
	for b.Loop() {
		f.Trailer.Records[0].Number++
		a.Frame(f)
	}
}
