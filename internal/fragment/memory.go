package fragment

import "math/bits"

const (
	unit     = 8    // bytes that fragment offsets count in
	chunkLen = 1984 // bytes of data in a chunk, a multiple of unit
	chunkMem = 2048 // bytes that a chunk takes
)

// chunk is the unit of memory. Its marks say which bytes are of a fragment; the others are
// left over from an earlier use.
type chunk struct {
	held  marks // units that are there
	begun marks // units that a fragment begins with
	data  [chunkLen]byte
}

// marks has one bit for each unit of a chunk.
type marks [4]uint64

// set sets the bits from a to b, b not included.
func (m *marks) set(a, b int) {
	for w := a / 64; w*64 < b; w++ {
		m[w] |= mask(a-w*64, b-w*64)
	}
}

// count counts those of the bits from a to b, b not included, that are set.
func (m *marks) count(a, b int) (n int) {
	for w := a / 64; w*64 < b; w++ {
		n += bits.OnesCount64(m[w] & mask(a-w*64, b-w*64))
	}
	return n
}

// mask has the bits from a to b of one word; a may be below the word and b above it.
func mask(a, b int) uint64 {
	return ^uint64(0) << max(a, 0) & (^uint64(0) >> max(64-b, 0))
}

// memory hands out chunks and takes them back. They are made when first needed.
type memory struct {
	limit int // chunks that may be in use
	used  int
	free  []*chunk
}

func (m *memory) left() int { return m.limit - m.used }

func (m *memory) take() *chunk {
	m.used++
	if len(m.free) == 0 {
		return new(chunk)
	}
	c := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	c.held, c.begun = marks{}, marks{}
	return c
}

func (m *memory) give(c *chunk) {
	m.used--
	m.free = append(m.free, c)
}
