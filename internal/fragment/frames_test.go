package fragment

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"
)

// datagramSpec is an IP datagram, and what is the same in all fragments of it.
type datagramSpec struct {
	version  int
	link     []byte // Ethernet header and tags
	id       uint32
	class    byte     // TOS, traffic class
	df       bool     // IPv4
	options  []byte   // IPv4, in the first fragment
	copied   []byte   // IPv4, in the others
	head     [][]byte // IPv6: extension headers in front of the fragment header, by next header
	numbers  []byte   // and their numbers
	next     byte     // what the data begins with
	data     []byte
	src, dst byte // last byte of the addresses
}

// whole is the frame of the datagram unfragmented.
func (s *datagramSpec) whole() []byte {
	if s.version == 4 {
		return s.packet4(0, s.data, false, s.options, s.class)
	}
	return s.packet6(nil, s.data, s.class)
}

// fragment is the frame of one fragment.
func (s *datagramSpec) fragment(offset, end int, more bool, class byte) []byte {
	if s.version == 4 {
		options := s.copied
		if offset == 0 {
			options = s.options
		}
		return s.packet4(offset, s.data[offset:end], more, options, class)
	}
	h := binary.BigEndian.AppendUint16([]byte{s.next, 0}, uint16(offset))
	if more {
		h[3] |= 1
	}
	return s.packet6(binary.BigEndian.AppendUint32(h, s.id), s.data[offset:end], class)
}

func (s *datagramSpec) packet4(offset int, data []byte, more bool, options []byte, class byte) []byte {
	length := 20 + len(options)
	flags := uint16(offset / 8)
	if s.df {
		flags |= 0x4000
	}
	if more {
		flags |= 0x2000
	}
	ip := []byte{0x40 | byte(length/4), class}
	ip = binary.BigEndian.AppendUint16(ip, uint16(length+len(data)))
	ip = binary.BigEndian.AppendUint16(ip, uint16(s.id))
	ip = binary.BigEndian.AppendUint16(ip, flags)
	ip = append(ip, 64, s.next, 0, 0, 192, 0, 2, s.src, 198, 51, 100, s.dst)
	ip = append(ip, options...)
	sum4(ip)
	return slices.Concat(s.link, []byte{8, 0}, ip, data)
}

// packet6 has the fragment header h, or none.
func (s *datagramSpec) packet6(h, data []byte, class byte) []byte {
	numbers := append(slices.Clone(s.numbers), s.next)
	if h != nil {
		numbers[len(numbers)-1] = 44
	}
	ip := []byte{0x60 | class>>4, class << 4, 0, 0, 0, 0, numbers[0], 64}
	for _, last := range []byte{s.src, s.dst} {
		ip = append(append(ip, 0x20, 1, 0x0d, 0xb8), make([]byte, 12)...)
		ip[len(ip)-1] = last
	}
	for i, b := range s.head {
		b = bytes.Clone(b)
		b[0] = numbers[i+1]
		ip = append(ip, b...)
	}
	ip = slices.Concat(ip, h, data)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	return slices.Concat(s.link, []byte{0x86, 0xdd}, ip)
}

// drawLink draws an Ethernet header without its last EtherType.
func drawLink(t *rapid.T) []byte {
	link := rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "MACs")
	for range rapid.IntRange(0, 2).Draw(t, "tags") {
		link = append(link, rapid.SampledFrom([]string{"\x81\x00", "\x88\xa8"}).Draw(t, "TPID")...)
		link = append(link, rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "TCI")...)
	}
	return link
}

// drawDatagram draws a datagram with that much data. Numbered datagrams differ in
// their keys.
func drawDatagram(t *rapid.T, number, length int) *datagramSpec {
	s := &datagramSpec{
		version: rapid.SampledFrom([]int{4, 6}).Draw(t, "version"),
		link:    drawLink(t),
		id:      rapid.Uint32Range(0, 2).Draw(t, "ID"),
		class:   rapid.Byte().Draw(t, "class"),
		df:      rapid.Bool().Draw(t, "DF"),
		next:    rapid.SampledFrom([]byte{17, 50, 51, 59, 6, 1}).Draw(t, "next"),
		src:     byte(number),
		dst:     rapid.ByteRange(1, 2).Draw(t, "to"),
		data:    noise(rapid.Uint64().Draw(t, "data"), length),
	}
	if s.version == 4 {
		s.options = drawOptions(t)
		s.copied = drawOptions(t)
		return s
	}
	for _, number := range rapid.SampledFrom([]string{"", "", "\x00", "\x3c", "\x2b", "\x00\x2b", "\x00\x3c\x2b\x3c"}).Draw(t, "extensions") {
		n := rapid.IntRange(0, 5).Draw(t, "extension length")
		b := rapid.SliceOfN(rapid.Byte(), 8+n*8, 8+n*8).Draw(t, "extension")
		b[1] = byte(n)
		s.head, s.numbers = append(s.head, b), append(s.numbers, byte(number))
	}
	if length >= 8 && rapid.Bool().Draw(t, "options behind") {
		s.data[0], s.data[1], s.next = s.next, 0, 60
	}
	return s
}

// noise is n bytes that look like no others.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed)))
	r.Read(b)
	return b
}

func drawOptions(t *rapid.T) []byte {
	n := rapid.SampledFrom([]int{0, 0, 4, 40}).Draw(t, "options length")
	return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "options")
}

// split cuts a datagram into two or more fragments. The Ethernet headers of later
// ones are other than the first's, and some have padding behind.
func (s *datagramSpec) split(t *rapid.T) (frames [][]byte) {
	units := (len(s.data) - 1) / 8
	largest := rapid.SampledFrom([]int{units/100 + 1, 185, 8192}).Draw(t, "largest")
	for at := 0; at < len(s.data); {
		n := rapid.IntRange(1, min(largest, units)).Draw(t, "units")
		end := min(at+n*8, len(s.data))
		frame := s.fragment(at, end, end < len(s.data), s.class)
		if at > 0 {
			frame[rapid.IntRange(0, 11).Draw(t, "other")]++
		}
		frame = append(frame, make([]byte, rapid.SampledFrom([]int{0, 0, 30}).Draw(t, "padding"))...)
		frames = append(frames, frame)
		at = end
	}
	return frames
}
