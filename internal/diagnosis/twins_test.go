package diagnosis_test

import (
	"strings"
	"testing"

	"tapsec/internal/diagnosis"
	"tapsec/internal/lab/forge"
	"tapsec/sa"
)

// both has a frame come whose packet the host shows, or not.
func (g *gallery) both(s *sa.SA, i int, spoil func([]byte) []byte, shown bool) {
	g.t.Helper()
	c := scene{sent: s, spoil: spoil}
	g.see(forge.AppendFrame(nil, c.packet(i)))
	if shown {
		inside := plainPacket(i)
		inside[1] |= 3 // CE, from the tunnel
		g.see(forge.AppendFrame(nil, inside))
	}
}

// Frames that the host that captures opened are followed by the packets in them.
// What of these is missing is said, and what is there though the frame failed.
func TestTwins(t *testing.T) {
	a, b, out := esp(), esp(named("site-b", 0x1002), key(9)), esp(named("out", 0x1003), key(5), back)
	g := newGallery(t, a, b, out, ah(named("site-ah", 0x1004)))
	for i := range 5 {
		g.both(a, i, nil, i != 3)
		c := scene{sent: out}
		frame := forge.AppendFrame(nil, c.packet(i))
		frame[5], frame[11] = frame[11], frame[5] // the other way between the stations
		g.see(frame)
	}
	g.both(a, 2, nil, false) // a replay
	g.both(b, 7, nil, false)
	g.both(b, 8, nil, false)
	g.both(a, 50, nil, false) // two alike
	g.both(a, 50, nil, true)
	g.see(forge.AppendFrame(nil, plainPacket(50)))
	found := g.want(diagnosis.NotShown, diagnosis.NotShown)
	for i, want := range []string{"those of 6 good frames of site-a, and not those of 2: frame 10, 15", "those of 0 good frames of site-b, and not those of 2: frame 16, 17"} {
		if i < len(found) && (!strings.HasSuffix(found[i].Sentence, want) || found[i].Certain) {
			t.Errorf("%q, want %q", found[i].Sentence, want)
		}
	}

	g = newGallery(t, a, ah())
	for i := range 3 {
		g.both(esp(key(80)), i, nil, true)
	}
	found = g.want(diagnosis.NothingFound, diagnosis.ShownThough)
	if want := "Behind 3 of the 3 frames of site-a that fail here a packet follows that fits, as a host shows what it has opened: frame 1, 3, 5"; len(found) == 2 && (found[1].Sentence != want || found[1].Certain) {
		t.Errorf("%+v, want %q", found[1], want)
	}

	g = newGallery(t, ah())
	g.both(ah(key(80)), 1, nil, true)
	g.both(ah(key(80)), 1, nil, false)
	found = g.want(diagnosis.NothingFound, diagnosis.ShownThough)
	if want := "Behind 1 of the 2 frames"; len(found) == 2 && (!strings.HasPrefix(found[1].Sentence, want) || !found[1].Certain) {
		t.Errorf("%+v, want %q", found[1], want)
	}
}

// Where nobody captured on an IPsec host there are no twins, and nothing is said: a
// clear packet now and then is none, and neither is a retransmission in the tunnel.
func TestNoTwins(t *testing.T) {
	a := esp()
	g := newGallery(t, a)
	for i := range 20 {
		g.both(a, i%7, nil, false)
		g.see(forge.AppendFrame(nil, plainPacket(100+i)))
	}
	g.want()
	g = newGallery(t, a)
	for i := range 20 {
		g.both(esp(key(80)), i, nil, false)
	}
	g.want(diagnosis.NothingFound)

	g = newGallery(t, a) // what fits comes too late
	for i := range 3 {
		g.both(esp(key(80)), i, nil, false)
		for range 8 {
			g.see(forge.AppendFrame(nil, plainPacket(1000000)))
		}
		g.see(forge.AppendFrame(nil, plainPacket(i)))
	}
	g.want(diagnosis.NothingFound)
}

// However many frames wait, there is room for so many, and the order stays.
func TestManyWait(t *testing.T) {
	a := esp()
	g := newGallery(t, a)
	for i := range 3000 {
		g.both(a, i%5, nil, false)
	}
	g.both(a, 1, nil, true)
	g.want()
}
