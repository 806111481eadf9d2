package live

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"tapsec/status"
)

// A ring gives what was published, in order and unchanged, and counts what had no room,
// against a list.
func TestRingModel(t *testing.T) {
	type frame struct {
		came, left []byte
		lost       uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		const size = 8 * average
		r := newRing(size)
		var waiting, added []frame // published or not
		var lost, before, number uint64
		published, held := 0, 0
		sized := rapid.Custom(func(t *rapid.T) []byte {
			number++
			b := bytes.Repeat([]byte{byte(number)}, rapid.IntRange(0, 3000).Draw(t, "bytes"))
			return b
		})
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				f := frame{sized.Draw(t, "came"), sized.Draw(t, "left"), before}
				r.add(f.came, f.left, &status.Trailer{Ordinal: number})
				if n := len(f.came) + len(f.left); len(waiting)+len(added) < size/average && held+n <= size {
					added, before, held = append(added, f), 0, held+n
				} else {
					lost, before = lost+1, before+1
				}
			},
			"publish": func(*rapid.T) {
				r.publish()
				waiting, added = append(waiting, added...), nil
				published = len(waiting)
			},
			"take": func(t *rapid.T) {
				if (r.first() != nil) != (published > 0) {
					t.Fatalf("a frame waits: %t, and %d do", r.first() != nil, published)
				}
				if published == 0 {
					return
				}
				var p Pair
				r.take(&p)
				want := waiting[0]
				if !bytes.Equal(p.Came, want.came) || !bytes.Equal(p.Left, want.left) || p.Lost != want.lost {
					t.Fatalf("took %d and %d bytes behind %d, want %d and %d behind %d", len(p.Came), len(p.Left), p.Lost, len(want.came), len(want.left), want.lost)
				}
				waiting, published, held = waiting[1:], published-1, held-len(want.came)-len(want.left)
			},
			"": func(t *rapid.T) {
				if r.lost != lost {
					t.Fatalf("%d lost, want %d", r.lost, lost)
				}
			},
		})
	})
}
