package fragment

import (
	"bytes"
	"net/netip"

	"tapsec/wire"
)

// maxFrame is how far the pipeline's offsets reach (docs/contract.md, Headers in
// detail); maxParts chunks hold the data of the longest frame.
const (
	maxFrame = 1<<16 - 1
	maxParts = maxFrame/chunkLen + 1
)

// key tells datagrams apart (RFC 791 section 3.2, RFC 8200 section 4.5).
type key struct {
	src, dst netip.Addr
	carried  uint64
	id       uint32
	proto    uint8 // 0 in IPv6, where it is no part of the key
}

func keyOf(p wire.Packet, f wire.Fragment, carried uint64) key {
	k := key{src: p.Src, dst: p.Dst, carried: carried, id: f.ID}
	if p.Version == 4 {
		k.proto = p.Proto
	}
	return k
}

// datagram is what there is of one datagram.
type datagram struct {
	key            key
	born           int64  // when its first fragment came
	lost           Result // why it will never be whole; Held while it may be
	older, younger *datagram

	first wire.Fragment // the one with offset 0, once it is there
	start int           // offset of that one's IP header
	head  *chunk        // that one's bytes up to first.Head
	parts [maxParts]*chunk
	held  int   // bytes of data
	reach int   // highest end of a fragment with more to follow
	end   int   // length of all data; 0 while the last fragment is missing
	ecn   uint8 // one bit for each ECN field met
}

// span is the bytes from a to b of one part, b not included.
type span struct{ part, a, b int }

// spanAt is the part of the bytes from at to end that lies in one chunk.
func spanAt(at, end int) span {
	a := at % chunkLen
	return span{at / chunkLen, a, min(chunkLen, a+end-at)}
}

func (s span) len() int { return s.b - s.a }

func (s span) units() (a, b int) { return s.a / unit, (s.b + unit - 1) / unit }

// contradicts reports whether a fragment that ends there contradicts the others about the
// datagram's end: fragments with more to follow end before the last one, and there is only
// one last one.
func (d *datagram) contradicts(end int, more bool) bool {
	if more {
		return d.end != 0 && end >= d.end
	}
	return d.end != 0 && end != d.end || end <= d.reach
}

// meet compares a fragment with the bytes held: Held if none of its bytes are, Duplicate if
// this very fragment is, Overlap otherwise.
func (d *datagram) meet(offset int, data []byte) Result {
	held, begun, same := 0, 0, true
	for at, end := offset, offset+len(data); at < end; {
		s := spanAt(at, end)
		if c := d.parts[s.part]; c != nil {
			held += c.held.count(s.units())
			begun += c.begun.count(s.units())
			same = same && bytes.Equal(c.data[s.a:s.b], data[at-offset:][:s.len()])
		}
		at += s.len()
	}
	next := (offset + len(data) + unit - 1) / unit * unit
	switch {
	case held == 0:
		return Held
	case held*unit == next-offset && same && begun == 1 && d.begins(offset) && (d.begins(next) || !d.holds(next)):
		return Duplicate
	}
	return Overlap
}

// begins reports whether a fragment with that offset is held.
func (d *datagram) begins(offset int) bool {
	s := spanAt(offset, offset+1)
	return d.parts[s.part] != nil && d.parts[s.part].begun.count(s.units()) == 1
}

// holds reports whether there are bytes at that offset.
func (d *datagram) holds(offset int) bool {
	s := spanAt(offset, offset+1)
	return d.parts[s.part] != nil && d.parts[s.part].held.count(s.units()) == 1
}

// needs counts the chunks that storing a fragment takes.
func (d *datagram) needs(offset, end int) (n int) {
	if offset == 0 {
		n = 1
	}
	for at := offset; at < end; {
		s := spanAt(at, end)
		if d.parts[s.part] == nil {
			n++
		}
		at += s.len()
	}
	return n
}

// store keeps a fragment that overlaps nothing held.
func (d *datagram) store(m *memory, frame []byte, p wire.Packet, f wire.Fragment) {
	data := frame[f.Data:p.End]
	end := f.Offset + len(data)
	for at := f.Offset; at < end; {
		s := spanAt(at, end)
		c := d.parts[s.part]
		if c == nil {
			c = m.take()
			d.parts[s.part] = c
		}
		copy(c.data[s.a:s.b], data[at-f.Offset:])
		c.held.set(s.units())
		at += s.len()
	}
	first := spanAt(f.Offset, f.Offset+1)
	d.parts[first.part].begun.set(first.units())
	if f.Offset == 0 {
		d.first, d.start, d.head = f, p.Start, m.take()
		copy(d.head.data[:], frame[:f.Head])
	}
	if f.More {
		d.reach = max(d.reach, end)
	} else {
		d.end = end
	}
	d.held += len(data)
	d.ecn |= 1 << wire.ECN(frame, &p)
}

// complete reports whether all bytes are there, of which there is one at least. Those held do not
// overlap, nor reach beyond a known end.
func (d *datagram) complete() bool { return d.held == d.end }

// appendTo appends head and data of a datagram that is complete.
func (d *datagram) appendTo(dst []byte) []byte {
	dst = append(dst, d.head.data[:d.first.Head]...)
	for at := 0; at < d.end; {
		s := spanAt(at, d.end)
		dst = append(dst, d.parts[s.part].data[s.a:s.b]...)
		at += s.len()
	}
	return dst
}

// congestion reports whether a fragment met it. ok is false if only some fragments are
// ECN-capable; like Linux, it also refuses the mixtures that RFC 3168 section 5.3 leaves
// open.
func (d *datagram) congestion() (met, ok bool) {
	const notCapable, ce = 1 << 0, 1 << 3
	return d.ecn&ce != 0, d.ecn&notCapable == 0 || d.ecn == notCapable
}

// giveBack gives back the chunks.
func (d *datagram) giveBack(m *memory) {
	if d.head != nil {
		m.give(d.head)
		d.head = nil
	}
	for i, c := range d.parts {
		if c != nil {
			m.give(c)
			d.parts[i] = nil
		}
	}
}
