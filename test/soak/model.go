package soak

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// numbers is a set of numbers that mostly follow one another.
type numbers map[uint64]*[pageWords]uint64

const (
	pageWords = 16
	pageBits  = 64 * pageWords
)

// add reports whether the number is new.
func (n numbers) add(x uint64) bool {
	page := n[x/pageBits]
	if page == nil {
		page = new([pageWords]uint64)
		n[x/pageBits] = page
	}
	word, bit := &page[x%pageBits/64], uint64(1)<<(x%64)
	fresh := *word&bit == 0
	*word |= bit
	return fresh
}

func (n numbers) has(x uint64) bool {
	page := n[x/pageBits]
	return page != nil && page[x%pageBits/64]&(1<<(x%64)) != 0
}

// ledger says of each datagram of one line whether it may arrive: only if it was
// sent, and only once.
type ledger struct {
	mu      sync.Mutex
	next    uint64  // number of the next datagram
	unsent  numbers // those that the kernel did not take from the sender
	large   numbers // those that were cut into fragments
	arrived numbers
	count   uint64 // of those that arrived
	highest carried
}

// carried is how far a line has got: the highest numbers that arrived, plus one, of
// all datagrams and of the large ones. Those two ways differ: a small one is given to
// the interface, a large one to the kernel, which needs to know its neighbour.
type carried struct{ any, large uint64 }

// beyond reports whether both kinds of datagrams from that number on were carried.
func (c carried) beyond(number uint64) bool { return c.any > number && c.large > number }

// send hands out the next number. The datagram may arrive even before done is
// called with the kernel's answer.
func (l *ledger) send() (number uint64, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = l.next
	l.next++
	return number, func(err error) {
		if err != nil {
			l.mu.Lock()
			l.unsent.add(number)
			l.mu.Unlock()
		}
	}
}

// arrive says what is wrong with a datagram that comes; "" if it may.
func (l *ledger) arrive(number uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case number >= l.next:
		return "was never sent"
	case !l.arrived.add(number):
		return "came twice"
	}
	l.count++
	l.highest.any = max(l.highest.any, number+1)
	if l.large.has(number) {
		l.highest.large = max(l.highest.large, number+1)
	}
	return ""
}

// position is how many numbers were handed out, and the highest that came.
func (l *ledger) position() (next uint64, highest carried) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next, l.highest
}

// cut notes that a datagram is one that the kernel cuts into fragments.
func (l *ledger) cut(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.large.add(number)
}

// missing lists the numbers from first to the end that were sent and have not
// come.
func (l *ledger) missing(first, end uint64) (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := first; x < end; x++ {
		if !l.arrived.has(x) && !l.unsent.has(x) {
			all = append(all, fmt.Sprint(x)+map[bool]string{true: " (large)"}[l.large.has(x)])
		}
	}
	return all
}

// A datagram is: 4 bytes magic, 1 the sending host, 1 path, 2 length of all, 8
// number, then bytes that follow from the number.
const (
	magic      = "soak"
	headLen    = 16
	soakPort   = 7007
	largeLen   = 3000 // more than a fragment, and more than two when sealed
	maxLen     = 1200
	streamPort = 7008 // of TCP
)

// datagram makes the payload of number.
func datagram(l line, number uint64, length int) []byte {
	b := append(make([]byte, 0, length+8), magic...)
	b = append(b, byte(l.from), byte(l.path))
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = binary.BigEndian.AppendUint64(b, number)
	for x := number*31 + uint64(l.path*2+l.from) + 1; len(b) < length; { // xorshift64
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b[:length]
}

// read is the reverse; it says what is wrong with a payload that is none.
func read(b []byte) (l line, number uint64, wrong string) {
	if len(b) < headLen || string(b[:4]) != magic || b[4] > 1 || int(b[5]) >= len(paths) {
		return l, 0, fmt.Sprintf("is no datagram of the campaign: %x", b[:min(len(b), 32)])
	}
	l, number = line{int(b[5]), int(b[4])}, binary.BigEndian.Uint64(b[8:])
	length := int(binary.BigEndian.Uint16(b[6:]))
	if length < headLen || string(b) != string(datagram(l, number, length)) {
		return l, number, fmt.Sprintf("is altered: %d bytes, %x", len(b), b[:min(len(b), 32)])
	}
	return l, number, ""
}
