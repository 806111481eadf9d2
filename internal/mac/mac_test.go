package mac

import (
	"bytes"
	"hash"
	"testing"
)

// keyed names each transform as the vector files do.
var keyed = map[string]func(key []byte) (hash.Hash, error){
	"hmac-md5":    HMACMD5,
	"hmac-sha1":   HMACSHA1,
	"hmac-sha256": HMACSHA256,
	"hmac-sha384": HMACSHA384,
	"hmac-sha512": HMACSHA512,
	"cmac":        CMAC,
	"xcbc":        XCBC,
	"gmac":        gmacUnderTest,
}

// withIV is GMAC that takes a fixed IV at each Reset, as the other transforms
// need none.
type withIV struct{ *GMAC }

func (g withIV) Reset() {
	g.GMAC.Reset()
	g.SetIV(make([]byte, GMACIVSize))
}

func gmacUnderTest(key []byte) (hash.Hash, error) {
	g, err := NewGMAC(key, make([]byte, GMACSaltSize))
	if err != nil {
		return nil, err
	}
	h := withIV{g}
	h.Reset()
	return h, nil
}

func mustMAC(t testing.TB, name string, key []byte) hash.Hash {
	t.Helper()
	h, err := keyed[name](key)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A message gives the same tag at first and after a Reset, in whatever pieces it comes, and Sum neither
// changes the state nor what stands in b before it.
func TestHashContract(t *testing.T) {
	msg := make([]byte, 200)
	for i := range msg {
		msg[i] = byte(i * 7)
	}
	for name := range keyed {
		t.Run(name, func(t *testing.T) {
			h := mustMAC(t, name, msg[:16])
			if len(h.Sum(nil)) != h.Size() {
				t.Fatalf("tag has %d bytes, Size says %d", len(h.Sum(nil)), h.Size())
			}
			for n := range msg {
				h.Reset()
				h.Write(msg[:n])
				want := h.Sum(nil)
				first := mustMAC(t, name, msg[:16])
				first.Write(msg[:n])
				if got := first.Sum(nil); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: %x at first, %x after a Reset", n, got, want)
				}
				for _, step := range []int{1, 15, 16, 17} {
					h.Reset()
					for p := msg[:n]; len(p) > 0; p = p[min(step, len(p)):] {
						h.Write(p[:min(step, len(p))])
						h.Sum(nil)
					}
					got := h.Sum([]byte("before"))
					if !bytes.Equal(got, append([]byte("before"), want...)) {
						t.Fatalf("%d bytes in steps of %d: %x, at once %x", n, step, got, want)
					}
				}
			}
		})
	}
}

// On the frame path nothing is allocated per packet, and
// for HMAC that also shows that Reset restores the pad states it has kept.
func TestNoAllocs(t *testing.T) {
	msg, tag := make([]byte, 1400), make([]byte, 0, 64)
	for name := range keyed {
		h := mustMAC(t, name, make([]byte, 16))
		once := func() {
			h.Reset()
			h.Write(msg[:8])
			h.Write(msg)
			tag = h.Sum(tag[:0])
		}
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for name, bad := range map[string]int{
		"hmac-md5": 0, "hmac-sha1": 0, "hmac-sha256": 0, "hmac-sha384": 0, "hmac-sha512": 0,
		"cmac": 15, "xcbc": 24, "gmac": 20,
	} {
		if _, err := keyed[name](make([]byte, bad)); err == nil {
			t.Errorf("%s takes a key of %d bytes", name, bad)
		}
	}
	if _, err := NewGMAC(make([]byte, 16), make([]byte, 3)); err == nil {
		t.Error("GMAC takes a salt of 3 bytes")
	}
}

func TestGMACWantsAnIVPerMessage(t *testing.T) {
	g, err := NewGMAC(make([]byte, 16), make([]byte, GMACSaltSize))
	if err != nil {
		t.Fatal(err)
	}
	mustPanic(t, "a short IV", func() { g.SetIV(make([]byte, 7)) })
	mustPanic(t, "no IV", func() { g.Sum(nil) })
	g.SetIV(make([]byte, GMACIVSize))
	g.Sum(nil)
	g.Reset()
	mustPanic(t, "the last message's IV", func() { g.Sum(nil) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("no panic at %s", what)
		}
	}()
	f()
}

func BenchmarkMAC(b *testing.B) {
	for _, name := range []string{"hmac-sha1", "hmac-sha256", "hmac-sha512", "cmac", "gmac"} {
		h := mustMAC(b, name, make([]byte, 16))
		for _, size := range []struct {
			name string
			n    int
		}{{"64", 64}, {"576", 576}, {"1400", 1400}, {"9000", 9000}} {
			b.Run(name+"/"+size.name, func(b *testing.B) {
				msg, tag := make([]byte, size.n), make([]byte, 0, 64)
				b.SetBytes(int64(size.n))
				b.ReportAllocs()
				for b.Loop() {
					h.Reset()
					h.Write(msg)
					tag = h.Sum(tag[:0])
				}
			})
		}
	}
}

// BenchmarkHMACPerPacket is what keeping the HMAC saves.
func BenchmarkHMACPerPacket(b *testing.B) {
	key, msg, tag := make([]byte, 32), make([]byte, 64), make([]byte, 0, 64)
	for b.Loop() {
		h := mustMAC(b, "hmac-sha256", key)
		h.Write(msg)
		tag = h.Sum(tag[:0])
	}
}
