package fragment

import (
	"encoding/binary"
	"testing"
)

// FuzzAdd reads fragments from its input and gives them to a Buffer and to the
// model of it, which must agree on every byte and count. The Buffer is small, so
// that memory and time run out. Each fragment takes 8 bytes:
//
//	0     bit 0 the version, 1 the ID, 2 the protocol, 3 what carried it, 4 more,
//	      5 a byte of the frame changed, 6 Release, 7 other data
//	1, 2  offset; units above 8191 wrap around
//	3     length: units, or bytes where bit 0 of byte 6 is set
//	4     time that passes; signed, times 8
//	5     ECN, and an extension header
//	6, 7  which byte is changed, and to what
func FuzzAdd(f *testing.F) {
	held := []byte{0x10, 0, 0, 2, 1, 0, 0, 0}
	last := []byte{0x00, 0, 2, 2, 1, 0, 0, 0}
	v6 := func(b []byte) []byte { return append([]byte{b[0] | 1}, b[1:]...) }
	f.Add(append(append([]byte{}, held...), last...))
	f.Add(append(v6(last), v6(held)...))
	f.Add(append(append(append([]byte{}, held...), held...), 0x90, 0, 1, 9, 1, 0, 0, 0))
	f.Add([]byte{0x10, 0, 0, 255, 1, 3, 0, 0, 0x00, 0, 255, 13, 1, 1, 1, 0})
	f.Add([]byte{0x31, 0x1f, 0xff, 8, 0x7f, 6, 57, 1, 1, 0, 0, 9, 1, 4, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		x := newPair(Limits{Bytes: MinBytes, Datagrams: 3, Age: 1000})
		now := int64(0)
		for n := 0; len(in) >= 8 && n < 60; n, in = n+1, in[8:] {
			frame, carried := fuzzFrame(in)
			now += int64(int8(in[4])) * 8
			x.add(t, frame, carried, now)
			if in[0]&0x40 != 0 {
				x.release(t)
			}
		}
		x.release(t)
	})
}

func fuzzFrame(in []byte) (frame []byte, carried uint64) {
	bit := func(n int) int { return int(in[0]) >> n & 1 }
	s := plain(4+2*bit(0), 0)
	s.id, s.next, s.data = s.id+uint32(bit(1)), 50+byte(bit(2)), fuzzData[bit(7)]
	if in[5]&4 != 0 && s.version == 6 {
		s.head, s.numbers = [][]byte{make([]byte, 16)}, []byte{60}
		s.head[0][1] = 1
	}
	offset := int(binary.BigEndian.Uint16(in[1:])&0x1fff) * 8
	length := int(in[3]) * 8
	if in[6]&1 != 0 {
		length = int(in[3])
	}
	frame = s.fragment(offset, offset+length, bit(4) == 1, in[5]&3)
	if bit(5) == 1 {
		frame[12+int(in[6])%(len(frame)-12)] = in[7]
	}
	return frame, uint64(bit(3))
}

// fuzzData is what two datagrams carry; most of it is the same.
var fuzzData = func() [2][]byte {
	a, b := noise(1, 1<<17), noise(1, 1<<17)
	b[20]++
	return [2][]byte{a, b}
}()
