package fragment

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"tapsec/wire"
)

// model does what a Buffer does, slowly: a list of datagrams in the order in which
// they began, each a list of fragments.
type model struct {
	limits  Limits
	now     int64
	list    []*modelled
	expired uint64
	evicted uint64
	results [NumResults]uint64
}

type modelled struct {
	key    key
	born   int64
	lost   Result
	pieces []piece // in the order of their offsets
}

// piece is a fragment.
type piece struct {
	offset int
	data   []byte
	more   bool
	ecn    uint8
	head   []byte // frame up to the data, without an IPv6 fragment header, next header mended
	l3     int
}

func (p piece) end() int { return p.offset + len(p.data) }

// memoryOf is the bytes that a datagram with these pieces takes.
func memoryOf(pieces []piece) int {
	used := map[int]bool{}
	for _, p := range pieces {
		for part := p.offset / chunkLen; part <= (p.end()-1)/chunkLen; part++ {
			used[part] = true
		}
		if p.offset == 0 {
			used[-1] = true
		}
	}
	return len(used) * chunkMem
}

func (m *model) memory() (n int) {
	for _, d := range m.list {
		n += memoryOf(d.pieces)
	}
	return n
}

func (m *model) add(frame []byte, p wire.Packet, carried uint64, now int64) ([]byte, Result) {
	whole, r := m.judge(frame, p, carried, now)
	m.results[r]++
	return whole, r
}

func (m *model) judge(frame []byte, p wire.Packet, carried uint64, now int64) ([]byte, Result) {
	m.advance(now)
	f := wire.ParseFragment(frame, &p)
	one := piece{
		offset: f.Offset, data: bytes.Clone(frame[f.Data:min(p.End, len(frame))]), more: f.More,
		ecn: wire.ECN(frame, &p), head: bytes.Clone(frame[:f.Head]), l3: p.Start,
	}
	one.head[f.NextAt] = f.Next
	switch {
	case p.Short, p.Jumbo, one.more && len(one.data)%8 != 0, len(one.data) == 0 && (one.more || one.offset > 0):
		return nil, BadLength
	case len(one.head)+one.end() > math.MaxUint16:
		return nil, TooLong
	case one.offset == 0 && !one.more:
		return glue([]piece{one})
	case one.offset == 0 && len(one.head) > chunkLen:
		return nil, BadHeader
	}
	d := m.find(keyOf(p, f, carried))
	if d.lost != Held {
		return nil, d.lost
	}
	whole, r := m.insert(d, one)
	switch {
	case r == Whole:
		m.list = slices.DeleteFunc(m.list, func(x *modelled) bool { return x == d })
	case r > Duplicate:
		d.lost, d.pieces = r, nil
	}
	return whole, r
}

func (m *model) insert(d *modelled, one piece) ([]byte, Result) {
	for _, p := range d.pieces {
		if !one.more && (p.more && p.end() >= one.end() || !p.more && p.end() != one.end()) || one.more && !p.more && one.end() >= p.end() {
			return nil, BadEnd
		}
	}
	for _, p := range d.pieces {
		if p.offset == one.offset && bytes.Equal(p.data, one.data) {
			return nil, Duplicate
		}
	}
	for _, p := range d.pieces {
		if p.offset < one.end() && one.offset < p.end() {
			return nil, Overlap
		}
	}
	d.pieces = append(d.pieces, one)
	slices.SortFunc(d.pieces, func(a, b piece) int { return a.offset - b.offset })
	for m.memory() > m.limits.Bytes/chunkMem*chunkMem {
		m.evict(d)
	}
	at := 0
	for _, p := range d.pieces {
		if p.offset != at {
			return nil, Held
		}
		at = p.end()
	}
	if d.pieces[len(d.pieces)-1].more {
		return nil, Held
	}
	return glue(d.pieces)
}

// glue puts pieces together that are all there.
func glue(pieces []piece) ([]byte, Result) {
	first := pieces[0]
	whole := bytes.Clone(first.head)
	met := map[uint8]bool{}
	for _, p := range pieces {
		whole = append(whole, p.data...)
		met[p.ecn] = true
	}
	if len(whole) > math.MaxUint16 {
		return nil, TooLong
	}
	if met[0] && len(met) > 1 {
		return nil, ECNMismatch
	}
	mend(whole[first.l3:], met[3] && len(pieces) > 1)
	if p, err := wire.ParseIP(whole, first.l3, len(whole), whole[first.l3]>>4); err != nil || p.Fragment {
		return nil, BadHeader
	}
	return whole, Whole
}

// mend makes an unfragmented packet of ip.
func mend(ip []byte, congested bool) {
	if ip[0]>>4 == 6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		if congested {
			ip[1] |= 0x30
		}
		return
	}
	if congested {
		ip[1] |= 3
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[6] &^= 0x3f
	ip[7] = 0
	sum4(ip)
}

// sum4 writes an IPv4 header's checksum, by the book (RFC 1071 section 1).
func sum4(ip []byte) {
	ip[10], ip[11] = 0, 0
	sum := 0
	for i := 0; i < int(ip[0]&15)*4; i += 2 {
		sum += int(ip[i])<<8 + int(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], uint16(^sum))
}

func (m *model) advance(now int64) {
	age := int64(m.limits.Age)
	anew := m.now-now > age
	if anew || now > m.now {
		m.now = now
	}
	for len(m.list) > 0 && (anew || m.now-m.list[0].born >= age) {
		if m.list[0].lost == Held {
			m.expired++
		}
		m.list = m.list[1:]
	}
}

func (m *model) find(k key) *modelled {
	for _, d := range m.list {
		if d.key == k {
			return d
		}
	}
	if len(m.list) == m.limits.Datagrams {
		m.evict(nil)
	}
	d := &modelled{key: k, born: m.now}
	m.list = append(m.list, d)
	return d
}

func (m *model) evict(spared *modelled) {
	at := 0
	if m.list[0] == spared {
		at = 1
	}
	if m.list[at].lost == Held {
		m.evicted++
	}
	m.list = slices.Delete(m.list, at, at+1)
}

// pair is a Buffer and the model of it, which must agree on everything.
type pair struct {
	b     *Buffer
	m     *model
	lent  [][]byte // whole frames since Release
	saved [][]byte // and what they were
}

func newPair(l Limits) *pair {
	return &pair{b: New(l), m: &model{limits: New(l).limits}}
}

// fatal is what of a *testing.T and a *rapid.T a pair needs.
type fatal interface{ Fatalf(string, ...any) }

// add gives both the frame, if it is a fragment, and returns what they say. The
// room behind a whole frame is written to, as its owner will.
func (x *pair) add(t fatal, frame []byte, carried uint64, now int64) ([]byte, Result) {
	etherType, l3, ok := wire.Ethernet(frame)
	version := map[uint16]uint8{0x0800: 4, 0x86dd: 6}[etherType]
	if !ok || version == 0 {
		return nil, Held
	}
	p, err := wire.ParseIP(frame, l3, len(frame), version)
	if err != nil || !p.Fragment {
		return nil, Held
	}
	given := bytes.Clone(frame)
	whole, r := x.b.Add(frame, p, carried, now)
	want, wantR := x.m.add(given, p, carried, now)
	if r != wantR || !bytes.Equal(whole, want) {
		t.Fatalf("% x\nresult %v, want %v\n got % x\nwant % x", frame, r, wantR, whole, want)
	}
	if !bytes.Equal(frame, given) {
		t.Fatalf("the fragment was changed:\n got % x\nwant % x", frame, given)
	}
	clear(frame) // the caller's again: nothing of it may be in use
	if r == Whole {
		if cap(whole)-len(whole) < Tailroom {
			t.Fatalf("%d bytes behind the frame", cap(whole)-len(whole))
		}
		x.lent, x.saved = append(x.lent, whole), append(x.saved, want)
		tail := whole[len(whole) : len(whole)+Tailroom]
		for i := range tail {
			tail[i] = 0xee
		}
	}
	x.agree(t)
	return want, r
}

func (x *pair) agree(t fatal) {
	got := x.b.Stats()
	want := Stats{Datagrams: len(x.m.list), Bytes: x.m.memory(), Results: x.m.results, Expired: x.m.expired, Evicted: x.m.evicted}
	if got != want {
		t.Fatalf("\n got %+v\nwant %+v", got, want)
	}
	if got.Datagrams > x.m.limits.Datagrams || got.Bytes > x.m.limits.Bytes {
		t.Fatalf("%+v exceeds %+v", got, x.m.limits)
	}
}

// release looks whether all frames lent out are still what they were.
func (x *pair) release(t fatal) {
	for i, f := range x.lent {
		if !bytes.Equal(f, x.saved[i]) {
			t.Fatalf("frame %d of %d changed before Release:\n got % x\nwant % x", i, len(x.lent), f, x.saved[i])
		}
	}
	x.lent, x.saved = nil, nil
	x.b.Release()
}

func TestMarks(t *testing.T) {
	for a := range 256 {
		for _, b := range []int{a + 1, a + 2, a + 63, a + 64, a + 65, a + 130, 256} {
			if b > 256 {
				continue
			}
			var m marks
			m.set(a, b)
			for i := range 256 {
				if got, want := m.count(i, i+1) == 1, a <= i && i < b; got != want {
					t.Fatalf("bits from %d to %d: bit %d is %v", a, b, i, got)
				}
			}
			if m.count(0, 256) != b-a || m.count(a, b) != b-a || a > 0 && m.count(0, a) != 0 {
				t.Fatalf("bits from %d to %d are miscounted", a, b)
			}
		}
	}
}
