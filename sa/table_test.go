package sa

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var (
	testAddrs = []netip.Addr{
		{},
		netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("2001:db8::1"),
	}
	testSPIs = []uint32{0x100, 0x101, 0xc0010000}
)

// model is the table as a list that is searched from end to end.
type model struct {
	capacity int
	bundles  [][]*Entry[int]
	gone     []ID
}

func (m *model) entries() []*Entry[int] { return slices.Concat(m.bundles...) }

func (m *model) has(id ID) bool {
	return slices.ContainsFunc(m.entries(), func(e *Entry[int]) bool { return e.ID() == id })
}

func (m *model) add(bundle []*Entry[int]) error {
	if m.capacity > 0 && len(m.bundles) == m.capacity {
		return ErrFull
	}
	for _, e := range bundle {
		if m.has(e.ID()) {
			return ErrExists
		}
	}
	m.bundles = append(m.bundles, bundle)
	return nil
}

// best is the most specific SA of a protocol (contract, SA lookup).
func (m *model) best(p Protocol, spi uint32, dst, src netip.Addr, encap bool) *Entry[int] {
	for _, want := range []ID{{p, SPI(spi), dst, src}, {p, SPI(spi), dst, netip.Addr{}}, {p, SPI(spi), netip.Addr{}, netip.Addr{}}} {
		for _, e := range m.entries() {
			if e.ID() == want && (e.Encap == encap || encap && e.InUDP) {
				return e
			}
		}
	}
	return nil
}

func (m *model) lookup(spi uint32, dst, src netip.Addr, encap bool) (found Match[int]) {
	found.ESP = m.best(ESP, spi, dst, src, encap)
	found.AH = m.best(AH, spi, dst, src, encap)
	if found.ESP != nil || found.AH != nil {
		return found
	}
	found.Miss = MissSPI
	if slices.ContainsFunc(m.entries(), func(e *Entry[int]) bool { return e.SPI == spi }) {
		found.Miss = MissAddress
	}
	for _, id := range m.gone {
		dstFits := !id.Dst.IsValid() || id.Dst == dst
		srcFits := !id.Src.IsValid() || id.Src == src
		if uint32(id.SPI) == spi && dstFits && srcFits && !m.has(id) {
			found.Miss = MissDeleted
		}
	}
	if m.best(ESP, spi, dst, src, !encap) != nil || m.best(AH, spi, dst, src, !encap) != nil {
		found.Miss = MissEncap
	}
	return found
}

func drawSA(t *rapid.T, p Protocol) *SA {
	s := &SA{
		SPI:      rapid.SampledFrom(testSPIs).Draw(t, "spi"),
		Dst:      rapid.SampledFrom(testAddrs).Draw(t, "dst"),
		Protocol: p,
		Mode:     rapid.SampledFrom([]Mode{Transport, Auto}).Draw(t, "mode"),
		ESN:      true,
		SeqHigh:  rapid.Uint32Max(3).Draw(t, "high"),
		Encap:    p == ESP && rapid.Bool().Draw(t, "encap"),
	}
	if s.Dst.IsValid() {
		s.Src = rapid.SampledFrom(testAddrs).Draw(t, "src")
	}
	return s
}

func drawBundle(t *rapid.T) []*Entry[int] {
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		ah, esp := drawSA(t, AH), drawSA(t, ESP)
		esp.Dst, esp.Src, esp.Encap, esp.Mode = ah.Dst, ah.Src, false, ah.Mode
		return []*Entry[int]{{SA: ah}, {SA: esp}}
	case 1:
		return []*Entry[int]{{SA: drawSA(t, AH)}}
	}
	return []*Entry[int]{{SA: drawSA(t, ESP), InUDP: rapid.Bool().Draw(t, "in UDP")}}
}

// machine drives a table and its model with the same operations. The number of
// deletions is bounded by keepGone, up to which a miss can be told apart.
type machine struct {
	table   *Table[int]
	model   model
	handles map[uint32]bool
}

func (m *machine) add(t *rapid.T) {
	bundle := drawBundle(t)
	got, want := m.table.Add(bundle...), m.model.add(bundle)
	if !errors.Is(got, want) {
		t.Fatalf("Add: %v, expected %v", got, want)
	}
	if want != nil {
		return
	}
	for i, e := range bundle {
		if e.Handle == 0 || m.handles[e.Handle] {
			t.Fatalf("Add gave the handle %d, which is 0 or was used before", e.Handle)
		}
		m.handles[e.Handle] = true
		if e.Mark == nil || len(bundle) == 2 && e.Partner != bundle[1-i] || len(bundle) == 1 && e.Partner != nil {
			t.Fatalf("Add left mark %v and partner %v", e.Mark, e.Partner)
		}
	}
}

func (m *machine) remove(t *rapid.T) {
	if len(m.model.bundles) == 0 || len(m.model.gone)+2 > keepGone {
		if err := m.table.Delete(0); err != ErrUnknown {
			t.Fatalf("Delete(0): %v", err)
		}
		return
	}
	i := rapid.IntRange(0, len(m.model.bundles)-1).Draw(t, "bundle")
	bundle := m.model.bundles[i]
	handle := rapid.SampledFrom(bundle).Draw(t, "entry").Handle
	if err := m.table.Delete(handle); err != nil {
		t.Fatal(err)
	}
	if err := m.table.Delete(handle); err != ErrUnknown {
		t.Fatalf("second Delete: %v", err)
	}
	m.model.bundles = slices.Delete(m.model.bundles, i, i+1)
	for _, e := range bundle {
		m.model.gone = append(m.model.gone, e.ID())
	}
}

// reload replaces some SAs by themselves, leaves some as they are, and drops others.
func (m *machine) reload(t *rapid.T) {
	next := model{capacity: m.model.capacity, gone: m.model.gone}
	old := map[*Entry[int]]*Entry[int]{}
	for _, bundle := range m.model.bundles {
		if len(next.gone)+len(bundle) <= keepGone && rapid.Bool().Draw(t, "drop") {
			for _, e := range bundle {
				next.gone = append(next.gone, e.ID())
			}
			continue
		}
		if rapid.Bool().Draw(t, "stands") {
			next.bundles = append(next.bundles, bundle)
			continue
		}
		var again []*Entry[int]
		for _, e := range bundle {
			copied := *e.SA
			again = append(again, &Entry[int]{SA: &copied})
			old[again[len(again)-1]] = e
		}
		next.bundles = append(next.bundles, again)
	}
	if err := m.table.Replace(next.bundles); err != nil {
		t.Fatal(err)
	}
	for now, before := range old {
		if now.Mark != before.Mark || now.Handle != before.Handle {
			t.Fatalf("%v: Replace changed mark or handle of an unchanged SA", now.SA)
		}
	}
	m.model = next
}

func (m *machine) check(t *rapid.T) {
	for _, spi := range append(testSPIs, 0x999) {
		for _, dst := range testAddrs[1:] {
			for _, src := range testAddrs[1:] {
				for _, encap := range []bool{false, true} {
					got, want := m.table.Lookup(spi, dst, src, encap), m.model.lookup(spi, dst, src, encap)
					if got != want {
						t.Fatalf("Lookup(%#x, %s, %s, %v) = %+v, expected %+v", spi, dst, src, encap, got, want)
					}
				}
			}
		}
	}
	if got, want := len(m.table.List()), len(m.model.entries()); got != want {
		t.Fatalf("List has %d entries, expected %d", got, want)
	}
	for _, e := range m.model.entries() {
		if m.table.Entry(e.Handle) != e || m.table.Find(e.ID()) != e {
			t.Fatalf("%v is not what its handle %d and its identity name", e.SA, e.Handle)
		}
	}
	n, limit := len(m.model.bundles), m.model.capacity
	if got, want := m.table.UnderPressure(), limit > 0 && 16*(limit-n) <= limit; got != want {
		t.Fatalf("UnderPressure = %v with %d of %d bundles", got, n, limit)
	}
}

// Contract, SA lookup, Lifecycle and rows 2, 4, 27.
func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.SampledFrom([]int{0, 1, 3, 16}).Draw(t, "capacity")
		m := &machine{NewTable[int](capacity), model{capacity: capacity}, map[uint32]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"add": m.add, "delete": m.remove, "reload": m.reload, "": m.check,
		})
	})
}

func testEntry(spi uint32) *Entry[int] {
	return &Entry[int]{SA: &SA{Name: fmt.Sprintf("sa-%x", spi), SPI: spi, Dst: testAddrs[1], Protocol: ESP, Mode: Tunnel, ESN: true}}
}

// Replace is all or nothing: a table too small, or an SA twice, changes nothing.
func TestTableReplaceFails(t *testing.T) {
	table := NewTable[int](2)
	kept := testEntry(0x100)
	if err := table.Add(kept); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want    error
		bundles [][]*Entry[int]
	}{
		{ErrFull, [][]*Entry[int]{{testEntry(1)}, {testEntry(2)}, {testEntry(3)}}},
		{ErrBundle, [][]*Entry[int]{{testEntry(1)}, {}}},
		{ErrExists, [][]*Entry[int]{{testEntry(1)}, {testEntry(1)}}},
		{ErrExists, [][]*Entry[int]{{kept}, {kept}}},
		{ErrExists, [][]*Entry[int]{{kept}, {testEntry(0x100)}}},
		{ErrExists, [][]*Entry[int]{{testEntry(0x100)}, {kept}}},
	} {
		if err := table.Replace(c.bundles); !errors.Is(err, c.want) {
			t.Errorf("Replace: %v, expected %v", err, c.want)
		}
	}
	if m := table.Lookup(0x100, testAddrs[1], testAddrs[2], false); m.ESP != kept || len(table.List()) != 1 {
		t.Errorf("after a refused Replace the table holds %v", table.List())
	}
}

// A reloaded SA whose key changed, whichever, is another SA: its mark and
// handle are new.
func TestTableReplaceNewKey(t *testing.T) {
	for _, change := range []func(*SA){
		func(s *SA) { s.EncryptionKey = NewKey([]byte{1}) },
		func(s *SA) { s.IntegrityKey = NewKey([]byte{1}) },
	} {
		table := NewTable[int](0)
		old, next := testEntry(0x100), testEntry(0x100)
		if err := table.Add(old); err != nil {
			t.Fatal(err)
		}
		old.Mark.Authenticated(77)
		change(next.SA)
		if err := table.Replace([][]*Entry[int]{{next}}); err != nil {
			t.Fatal(err)
		}
		if next.Handle == old.Handle || next.Mark == old.Mark || next.Mark.T() != 0 {
			t.Errorf("handle %d mark %d, before %d %d", next.Handle, next.Mark.T(), old.Handle, old.Mark.T())
		}
	}
}

// A reload keeps T. Where no number has been authenticated yet there is none,
// and what the reload says of it counts (contract, ESN).
func TestTableReplaceBeforeT(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*Mark)
		change func(*SA)
		want   uint64
	}{
		{"unchanged", func(m *Mark) { m.Update(7) }, func(*SA) {}, 7<<32 | 1},
		{"seq_high", func(*Mark) {}, func(s *SA) { s.SeqHigh = 5 }, 5<<32 | 1},
		{"seq", func(*Mark) {}, func(s *SA) { s.Seq = 5<<32 | 9 }, 5<<32 | 1},
		{"seq behind T", func(m *Mark) { m.Authenticated(3<<32 | 4) }, func(s *SA) { s.Seq = 5<<32 | 9 }, 3<<32 | 1},
	} {
		table := NewTable[int](0)
		old, next := testEntry(0x100), testEntry(0x100)
		if err := table.Add(old); err != nil {
			t.Fatal(err)
		}
		c.before(old.Mark)
		c.change(next.SA)
		if err := table.Replace([][]*Entry[int]{{next}}); err != nil {
			t.Fatal(err)
		}
		if got := next.Mark.Number(1); got != c.want || next.Handle != old.Handle {
			t.Errorf("%s: number %#x, handle %d, expected %#x and %d", c.name, got, next.Handle, c.want, old.Handle)
		}
	}
}

// A bundle is an AH and the ESP SA beneath it, of one destination and mode;
// nothing else comes into the table (contract, Bundles and lifecycle).
func TestTableRefusesOddBundles(t *testing.T) {
	entry := func(p Protocol, change func(*SA)) *Entry[int] {
		e := testEntry(0x100)
		e.Protocol = p
		change(e.SA)
		return e
	}
	same := func(*SA) {}
	ah, esp := entry(AH, same), entry(ESP, same)
	table := NewTable[int](1)
	for name, bundle := range map[string][]*Entry[int]{
		"nothing":             {},
		"one SA twice":        {esp, esp},
		"two of ESP":          {esp, entry(ESP, func(s *SA) { s.SPI++ })},
		"two of AH":           {ah, entry(AH, func(s *SA) { s.SPI++ })},
		"ESP first":           {esp, ah},
		"three":               {ah, esp, entry(ESP, func(s *SA) { s.SPI++ })},
		"another destination": {ah, entry(ESP, func(s *SA) { s.Dst = testAddrs[2] })},
		"another mode":        {ah, entry(ESP, func(s *SA) { s.Mode = Transport })},
		"ESP in UDP":          {ah, entry(ESP, func(s *SA) { s.Encap = true })},
	} {
		if err := table.Add(bundle...); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v", name, err)
		}
		if err := table.Replace([][]*Entry[int]{bundle}); !errors.Is(err, ErrBundle) {
			t.Errorf("%s, by Replace: %v", name, err)
		}
	}
	if err := table.Add(ah, esp); err != nil || len(table.List()) != 2 {
		t.Errorf("then a bundle: %v, %d SAs", err, len(table.List()))
	}
}

// Handles begin anew after the last one, pass over those in use, and are never
// 0.
func TestTableHandlesWrap(t *testing.T) {
	table := NewTable[int](0)
	first := testEntry(0x100)
	if err := table.Add(first); err != nil {
		t.Fatal(err)
	}
	table.lastHandle = 1<<32 - 2
	for i, want := range []uint32{1<<32 - 1, 2} {
		e := testEntry(0x200 + uint32(i))
		if err := table.Add(e); err != nil || e.Handle != want {
			t.Errorf("handle %d, %v, expected %d", e.Handle, err, want)
		}
	}
}

// What was deleted is remembered when the table grows and when it is reloaded
// (contract row 27).
func TestTableRemembersDeleted(t *testing.T) {
	table := NewTable[int](0)
	gone := testEntry(0xdead)
	if err := errors.Join(table.Add(gone), table.Delete(gone.Handle)); err != nil {
		t.Fatal(err)
	}
	miss := func() Miss { return table.Lookup(0xdead, testAddrs[1], testAddrs[2], false).Miss }
	for spi := range uint32(4000) {
		if err := table.Add(testEntry(0x10000 + spi)); err != nil {
			t.Fatal(err)
		}
	}
	if got := miss(); got != MissDeleted {
		t.Errorf("after growing: %d", got)
	}
	table.Flush()
	if got := miss(); got != MissDeleted {
		t.Errorf("after a flush: %d", got)
	}
	if err := table.Add(testEntry(0xdead)); err != nil || miss() != Found {
		t.Errorf("added again: %v, %d", err, miss())
	}
}

// An SA that comes and goes does not push others out of what is remembered.
func TestTableRemembersEachOnce(t *testing.T) {
	table := NewTable[int](0)
	gone := testEntry(0xdead)
	if err := errors.Join(table.Add(gone), table.Delete(gone.Handle)); err != nil {
		t.Fatal(err)
	}
	for range 2 * keepGone {
		again := testEntry(0xdead)
		again.Dst = testAddrs[2]
		if err := errors.Join(table.Add(again), table.Delete(again.Handle)); err != nil {
			t.Fatal(err)
		}
	}
	if got := table.Lookup(0xdead, testAddrs[1], testAddrs[2], false).Miss; got != MissDeleted {
		t.Errorf("miss %d", got)
	}
}

// However SPIs are chosen, no chain is much longer than the average of one.
func TestTableSpreadsSPIs(t *testing.T) {
	for name, spi := range map[string]func(i uint32) uint32{
		"counting":      func(i uint32) uint32 { return 0xc0000000 + i },
		"byte-swapped":  func(i uint32) uint32 { return i<<24 | i<<8&0xff0000 },
		"high half":     func(i uint32) uint32 { return i << 16 },
		"steps of 4096": func(i uint32) uint32 { return i << 12 },
	} {
		table := NewTable[int](0)
		for i := range uint32(50000) {
			if err := table.Add(testEntry(spi(i + 1))); err != nil {
				t.Fatal(err)
			}
		}
		longest, parts := 0, table.index.Load()
		for i := range parts {
			for j := range parts[i].Load().slots {
				n := 0
				for l := parts[i].Load().slots[j].Load(); l != nil; l = l.next {
					n++
				}
				longest = max(longest, n)
			}
		}
		if longest > 8 {
			t.Errorf("%s: %d of 50000 SAs in one chain", name, longest)
		}
	}
}

func TestTablePressureAndUpdate(t *testing.T) {
	table := NewTable[int](0)
	e := testEntry(0x100)
	if err := table.Add(e); err != nil || table.UnderPressure() {
		t.Fatalf("%v, under pressure: %v", err, table.UnderPressure())
	}
	table.ForcePressure(true)
	if table.Flush(); !table.UnderPressure() {
		t.Error("a flush ended the forced pressure")
	}
	if table.ForcePressure(false); table.UnderPressure() {
		t.Error("pressure stayed on")
	}
	if err := table.Update(e.Handle, 5); err != ErrUnknown {
		t.Errorf("Update of a flushed SA: %v", err)
	}
	if err := errors.Join(table.Add(e), table.Update(e.Handle, 5)); err != nil || e.Mark.Number(1) != 5<<32|1 {
		t.Errorf("Update: %v, number %#x", err, e.Mark.Number(1))
	}
}

func TestTableLookupDoesNotAllocate(t *testing.T) {
	table := NewTable[int](0)
	gone := testEntry(0x200)
	if err := errors.Join(table.Add(testEntry(0x100)), table.Add(gone), table.Delete(gone.Handle)); err != nil {
		t.Fatal(err)
	}
	for _, spi := range []uint32{0x100, 0x200, 0x300} {
		if n := testing.AllocsPerRun(100, func() { table.Lookup(spi, testAddrs[1], testAddrs[2], false) }); n != 0 {
			t.Errorf("Lookup(%#x) allocates %v times", spi, n)
		}
	}
}

// The table asks for deletions while a sixteenth of its capacity or less is free
// (contract, Lifecycle).
func TestTablePressureBound(t *testing.T) {
	table := NewTable[int](240)
	for n := 1; n <= 240; n++ {
		if err := table.Add(testEntry(uint32(n))); err != nil {
			t.Fatal(err)
		}
		if want := 240-n <= 15; table.UnderPressure() != want {
			t.Errorf("%d of 240: pressure %v, want %v", n, table.UnderPressure(), want)
		}
	}
}

// What has failed of an SA is counted for each half of its bundle, and a reload that
// leaves it alone leaves that, too.
func TestTableFailures(t *testing.T) {
	table := NewTable[int](0)
	bundle := func() []*Entry[int] {
		upper, lower := testEntry(0x100), testEntry(0x200)
		upper.Protocol = AH
		return []*Entry[int]{upper, lower}
	}
	first := bundle()
	if err := table.Add(first...); err != nil {
		t.Fatal(err)
	}
	table.Fail(first[0], 7)
	table.Fail(first[1], 8)
	table.Fail(first[1], 9)
	if err := table.Replace([][]*Entry[int]{bundle(), {testEntry(0x300)}}); err != nil {
		t.Fatal(err)
	}
	got := map[uint32][2]uint64{}
	table.Each(func(e *Entry[int]) {
		frames, why := table.Failed(e)
		got[e.SPI] = [2]uint64{frames, uint64(why)}
	})
	if want := map[uint32][2]uint64{0x100: {1, 7}, 0x200: {2, 9}, 0x300: {}}; !maps.Equal(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
}

// Whose deletion is asked for is known until the pressure ends.
func TestTableAsked(t *testing.T) {
	table, e := NewTable[int](16), testEntry(0x100)
	if err := table.Add(e); err != nil || table.Asks(e) || table.Asked(e) {
		t.Fatalf("without pressure: %v", err)
	}
	table.ForcePressure(true)
	if table.Asked(e) || !table.Asks(e) || !table.Asked(e) {
		t.Error("asked for by its frame, and not before")
	}
	table.Tick()
	table.ForcePressure(false)
	if table.Tick(); table.Asked(e) {
		t.Error("the pressure is over")
	}
}
