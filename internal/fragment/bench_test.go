package fragment

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"tapsec/wire"
)

// cutUp is a datagram in fragments with so many bytes of data each.
func cutUp(b *testing.B, version, length, each int) (frames [][]byte, packets []wire.Packet) {
	s := plain(version, length)
	for at := 0; at < length; at += each {
		f := s.fragment(at, min(at+each, length), at+each < length, 0)
		p, err := wire.ParseIP(f, 14, len(f), f[14]>>4)
		if err != nil {
			b.Fatal(err)
		}
		frames, packets = append(frames, f), append(packets, p)
	}
	return frames, packets
}

// A datagram from its first fragment to its last; divide by the fragments.
func BenchmarkDatagram(b *testing.B) {
	for _, version := range []int{4, 6} {
		for _, length := range []int{1600, 9000, 65000} {
			b.Run(fmt.Sprintf("IPv%d/%d", version, length), func(b *testing.B) {
				frames, packets := cutUp(b, version, length, 1480)
				runAll(b, frames, packets)
			})
		}
	}
}

// Fragments of 8 bytes in the worst order there may be: the time for each must not
// grow with their number.
func BenchmarkTiny(b *testing.B) {
	for _, length := range []int{640, 6400, 64000} {
		for _, order := range []string{"forward", "backward", "random"} {
			b.Run(fmt.Sprintf("%d/%s", length/8, order), func(b *testing.B) {
				frames, packets := cutUp(b, 4, length, 8)
				r := rand.New(rand.NewPCG(1, 2))
				for i := range frames {
					j := i
					switch order {
					case "backward":
						j = max(i, len(frames)-1-i)
					case "random":
						j = i + r.IntN(len(frames)-i)
					}
					frames[i], frames[j] = frames[j], frames[i]
					packets[i], packets[j] = packets[j], packets[i]
				}
				runAll(b, frames, packets)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(frames)), "ns/fragment")
			})
		}
	}
}

func runAll(b *testing.B, frames [][]byte, packets []wire.Packet) {
	x, bytes := New(Limits{}), 0
	for _, f := range frames {
		bytes += len(f)
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		x.Release()
		for i, f := range frames {
			x.Add(f, packets[i], 0, 1)
		}
	}
	if n := x.Stats().Results; n[Whole] == 0 || n[Held] != n[Whole]*uint64(len(frames)-1) {
		b.Fatalf("%v", n)
	}
}

// A Buffer that is full: every fragment begins a datagram and evicts another.
func BenchmarkFlood(b *testing.B) {
	x, s := New(Limits{}), plain(6, 1480)
	f := s.fragment(0, 1480, true, 0)
	p, err := wire.ParseIP(f, 14, len(f), 6)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for id := uint32(0); b.Loop(); id++ {
		binary.BigEndian.PutUint32(f[58:], id)
		x.Add(f, p, 0, 1)
	}
}
