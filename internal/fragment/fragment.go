// Package fragment puts fragmented IP datagrams together again (RFC 791 section
// 3.2, RFC 8200 section 4.5), bounded in memory and time.
//
// A Buffer takes fragments one by one, as Ethernet frames, copies what it needs, and returns
// the frame of a datagram once it is complete. An overlap loses the datagram (RFC 5722). The
// work for a fragment is proportional to its length, whatever came before (CVE-2018-5391).
// No byte of a frame returned is another datagram's. The package reads no clock and sends no
// ICMP.
//
// Neither MAC addresses nor VLAN tags distinguish datagrams. A caller that keeps VLANs apart,
// or trusts some senders more than others, distinguishes them by the number that Add takes,
// or uses two Buffers so that one cannot fill the other.
package fragment

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tapsec/wire"
)

// Tailroom is the spare capacity in bytes of every frame returned.
const Tailroom = 320

// MinBytes is the least memory that a Buffer needs: that of the longest datagram.
const MinBytes = (maxParts + 1) * chunkMem

// Limits bound a Buffer. A zero field means the default. At a limit the oldest datagrams make
// room for new ones, as in gVisor. Linux refuses the new ones, so that one sender can block
// it for as long as Age.
type Limits struct {
	Bytes     int           // memory for fragments, in chunks of 2 KiB, at least MinBytes; 4 MiB, as in Linux and gVisor
	Datagrams int           // incomplete or lost at once, of another 512 bytes each; 1024, as in VPP
	Age       time.Duration // since the first fragment; 30 s, as in Linux for IPv4, where RFC 8200 allows 60
}

// Stats is what a Buffer holds, as of its last Add, and has done.
type Stats struct {
	Datagrams int                // held, with those that are lost but not forgotten
	Bytes     int                // of memory for fragments in use
	Results   [NumResults]uint64 // of Add
	Expired   uint64             // datagrams that became too old
	Evicted   uint64             // datagrams that made room for others
}

// Buffer holds the fragments of datagrams that are not complete. It is for one
// goroutine at a time; all fragments of a datagram must reach the same one.
type Buffer struct {
	limits           Limits
	now              int64
	memory           memory
	datagrams        map[key]*datagram
	oldest, youngest *datagram
	free             []*datagram
	out              [][]byte // frames returned, and their memory for later ones
	lent             int      // of out, since Release
	stats            Stats
}

// New makes a Buffer. It panics on limits that are negative or too small. Memory
// is taken when it is first needed, and kept.
func New(l Limits) *Buffer {
	l.Bytes = cmp.Or(l.Bytes, 4<<20)
	l.Datagrams = cmp.Or(l.Datagrams, 1024)
	l.Age = cmp.Or(l.Age, 30*time.Second)
	if l.Bytes < MinBytes || l.Datagrams < 0 || l.Age < 0 {
		panic(fmt.Sprintf("fragment: limits of %+v", l))
	}
	return &Buffer{limits: l, memory: memory{limit: l.Bytes / chunkMem}, datagrams: map[key]*datagram{}}
}

// Add takes the fragment p of an Ethernet frame, as wire.ParseIP found it; a packet that is
// not a fragment is the programmer's error. The frame is not kept. carried is part of a
// datagram's identity, so that fragments which arrived in different ways do not mix. now is
// in nanoseconds; a step back by no more than Age is ignored.
//
// The whole frame has the Ethernet header, tags and IP header of the first fragment, and ends
// with its packet. That is no longer a fragment: lengths and checksum are right, and an IPv6
// fragment header is gone. If a fragment met congestion, so did the whole (RFC 3168 section
// 5.3). The frame is the caller's until Release.
//
//  1. Time passes.
//  2. Refuse an impossible fragment before anything is looked up or kept.
//  3. An atomic fragment is whole, whatever is held (RFC 6946 section 4).
//  4. Find the datagram, or begin it. A lost one stays lost.
//  5. Keep the fragment if it agrees with the others, and see if all are there.
func (b *Buffer) Add(frame []byte, p wire.Packet, carried uint64, now int64) (whole []byte, r Result) {
	if !p.Fragment {
		panic("fragment: Add of a packet that is no fragment")
	}
	b.advance(now)
	whole, r = b.add(frame, p, wire.ParseFragment(frame, &p), carried)
	b.stats.Results[r]++
	return whole, r
}

func (b *Buffer) add(frame []byte, p wire.Packet, f wire.Fragment, carried uint64) ([]byte, Result) {
	if r := check(p, f); r != Held {
		return nil, r
	}
	if f.Offset == 0 && !f.More {
		out := append(b.room(f.Head+p.End-f.Data), frame[:f.Head]...)
		return b.finish(append(out, frame[f.Data:p.End]...), p.Start, f, false)
	}
	d := b.find(keyOf(p, f, carried))
	if d.lost != Held {
		return nil, d.lost
	}
	whole, r := b.insert(d, frame, p, f)
	switch r {
	case Held, Duplicate:
	case Whole:
		b.forget(d)
	default:
		d.lost = r
		d.giveBack(&b.memory)
	}
	return whole, r
}

// check refuses a fragment that is impossible by itself.
func check(p wire.Packet, f wire.Fragment) Result {
	n := p.End - f.Data
	atomic := f.Offset == 0 && !f.More
	switch {
	case p.Short || p.Jumbo || n == 0 && !atomic || f.More && n%unit != 0:
		return BadLength
	case f.Head+f.Offset+n > maxFrame:
		return TooLong
	case f.Offset == 0 && f.More && f.Head > chunkLen:
		return BadHeader
	}
	return Held
}

// insert keeps a fragment that agrees with those held. It returns the whole frame if that
// was the last one missing.
func (b *Buffer) insert(d *datagram, frame []byte, p wire.Packet, f wire.Fragment) ([]byte, Result) {
	end := f.Offset + p.End - f.Data
	if d.contradicts(end, f.More) {
		return nil, BadEnd
	}
	if r := d.meet(f.Offset, frame[f.Data:p.End]); r != Held {
		return nil, r
	}
	for n := d.needs(f.Offset, end); b.memory.left() < n; {
		b.evict(d)
	}
	d.store(&b.memory, frame, p, f)
	if !d.complete() {
		return nil, Held
	}
	n := d.first.Head + d.end
	if n > maxFrame {
		return nil, TooLong
	}
	congested, ok := d.congestion()
	if !ok {
		return nil, ECNMismatch
	}
	return b.finish(d.appendTo(b.room(n)), d.start, d.first, congested)
}

// finish mends the headers of a frame made in room, and lends it out.
func (b *Buffer) finish(frame []byte, start int, first wire.Fragment, congested bool) ([]byte, Result) {
	wire.Unfragment(frame, start, first, congested)
	p, err := wire.ParseIP(frame, start, len(frame), frame[start]>>4)
	if err != nil || p.Fragment {
		return nil, BadHeader
	}
	b.lent++
	return frame, Whole
}

// room is empty memory for a frame of n bytes, the same until finish lends it out.
func (b *Buffer) room(n int) []byte {
	if b.lent == len(b.out) {
		b.out = append(b.out, nil)
	}
	b.out[b.lent] = slices.Grow(b.out[b.lent][:0], n+Tailroom)
	return b.out[b.lent]
}

// Release takes back all frames that Add has returned.
func (b *Buffer) Release() { b.lent = 0 }

// Stats counts.
func (b *Buffer) Stats() Stats {
	s := b.stats
	s.Datagrams, s.Bytes = len(b.datagrams), b.memory.used*chunkMem
	return s
}
