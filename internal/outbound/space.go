package outbound

import (
	"hash/maphash"
	"net/netip"

	"tapsec/sa"
	"tapsec/wire"
)

// space finds what may match a flow by the flow's addresses, however much there is: tuple
// space search (Srinivasan, Suri, Varghese 1999). All that asks for prefixes of the same two
// lengths is in one table, so that a flow is looked up once for each pair of lengths. What
// is found need not match: addresses may share a hash, and there are ports. The zero space
// is empty.
type space[T any] struct {
	shapes map[shape]map[uint64]*node[T] // the latest of each hash
	n      int
}

// shape is the lengths of two prefixes in bits.
type shape struct {
	src, dst int16 // -1: any address
	v6       bool
}

// node is a place in a space.
type node[T any] struct {
	value      T
	prev, next *node[T] // with the same hash; next is the one before
	hash       uint64
	age        uint64 // grows from node to node
	shape      shape
}

var seed = maphash.MakeSeed()

// addressesOf are the prefixes within which a selector matches; none is any. src and dst, if
// valid, must be the flow's.
func addressesOf(s *sa.Selector, src, dst netip.Addr) (from, to netip.Prefix) {
	if s != nil {
		from, to = s.Src, s.Dst
	}
	if src.IsValid() {
		from = netip.PrefixFrom(src, src.BitLen())
	}
	if dst.IsValid() {
		to = netip.PrefixFrom(dst, dst.BitLen())
	}
	return from, to
}

// add adds a node.
func (s *space[T]) add(n *node[T], from, to netip.Prefix) {
	n.shape = shape{-1, -1, false}
	if from.IsValid() {
		n.shape.src, n.shape.v6 = int16(from.Bits()), from.Addr().Is6()
	}
	if to.IsValid() {
		n.shape.dst, n.shape.v6 = int16(to.Bits()), to.Addr().Is6()
	}
	s.n++
	n.hash = n.shape.hash(from.Addr(), to.Addr())
	if s.shapes == nil {
		s.shapes = map[shape]map[uint64]*node[T]{}
	}
	table := s.shapes[n.shape]
	if table == nil {
		table = map[uint64]*node[T]{}
		s.shapes[n.shape] = table
	}
	if n.next = table[n.hash]; n.next != nil {
		n.next.prev = n
	}
	table[n.hash] = n
}

// remove takes a node out.
func (s *space[T]) remove(n *node[T]) {
	s.n--
	if n.next != nil {
		n.next.prev = n.prev
	}
	table := s.shapes[n.shape]
	switch {
	case n.prev != nil:
		n.prev.next = n.next
	case n.next != nil:
		table[n.hash] = n.next
	default:
		delete(table, n.hash)
	}
	if len(table) == 0 {
		delete(s.shapes, n.shape)
	}
}

// hash is that of addresses, as far as the prefixes reach.
func (p shape) hash(src, dst netip.Addr) uint64 {
	var b [32]byte
	for i, one := range []struct {
		addr netip.Addr
		bits int16
	}{{src, p.src}, {dst, p.dst}} {
		if one.bits >= 0 {
			within := netip.PrefixFrom(one.addr, int(one.bits)).Masked().Addr().As16()
			copy(b[16*i:], within[:])
		}
	}
	return maphash.Bytes(seed, b[:])
}

// find is the latest node whose value may match the flow by its addresses, and does match; nil
// if there is none.
func (s *space[T]) find(f *wire.Flow, matches func(T) bool) (found *node[T]) {
	for shape, table := range s.shapes {
		if shape.v6 != f.Dst.Is6() && (shape.src >= 0 || shape.dst >= 0) {
			continue
		}
		for n := table[shape.hash(f.Src, f.Dst)]; n != nil && (found == nil || n.age > found.age); n = n.next {
			if matches(n.value) {
				found = n
				break
			}
		}
	}
	return found
}

// matches reports whether any value matches the flow.
func (s *space[T]) matches(f *wire.Flow, matches func(T) bool) bool { return s.find(f, matches) != nil }
