package transport_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/test/testkit"
	"tapsec/transport"
)

// Profile invariance (contract, Capability profiles): what is delivered, byte for byte and
// in which order, and which frames are not, is the same whatever the NIC can do.
// Only the path differs, deliver or software, and of a drop the reason: an NIC
// that holds no SA of a tunnel says nothing of what lies in it. There is no other
// exception: windows move alike, since every valid ICV reaches its window
// wherever it was found valid.
func TestProfileInvariance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLottery(t, rt)
		hosts := l.hosts()
		for i := range rapid.IntRange(1, 60).Draw(rt, "frames") {
			frame := l.frame(i)
			var first string
			for j, h := range hosts {
				clean, v, r := h.receive(frame)
				got := "dropped"
				if v.Clean() {
					got = fmt.Sprintf("% x", clean)
				} else if v == transport.Held {
					got = "held"
				}
				if j == 0 {
					first = got
				} else if got != first {
					rt.Fatalf("frame %d\n% x\n%s says\n%s\n%s says (%s, %s)\n%s", i, frame, nics[0].name, first, nics[j].name, v, r, got)
				}
			}
		}
	})
}

// nics are the NICs to compare; the first does nothing at all.
var nics = []struct {
	name, profile string
	prepare       func(*pipeline.SAD)
}{
	{"no NIC", "full", func(d *pipeline.SAD) { d.Activate(false) }},
	{"full", "full", nil},
	{"ndis-v2", "ndis-v2", nil},
	{"ndis-v1", "ndis-v1", nil},
	{"ixgbe-82599", "ixgbe-82599", nil},
	{"mlx5-crypto", "mlx5-crypto", nil},
	{"ESP off", "full", func(d *pipeline.SAD) { d.Switch(true, false) }},
	{"AH off", "full", func(d *pipeline.SAD) { d.Switch(false, true) }},
	{"under pressure", "full", func(d *pipeline.SAD) { d.ForcePressure(true) }},
}

// lottery draws traffic.
type lottery struct {
	t      *testing.T
	rt     *rapid.T
	sas    []*sa.SA
	policy []sa.Policy
	stacks []stack
	sent   [][]byte
}

// stack is SAs, innermost first, over packets of one version.
type stack struct {
	sealer *outbound.Sealer
	n      int
	v6     bool
	next   uint64
}

func newLottery(t *testing.T, rt *rapid.T) *lottery {
	l := &lottery{t: t, rt: rt}
	preferred := func(s *sa.SA) {
		s.Offload = rapid.SampledFrom([]sa.Offload{sa.Preferred, sa.Preferred, sa.Never}).Draw(rt, s.Name)
	}
	begin := rapid.SampledFrom([]uint64{1, 1, 1<<32 - 20}).Draw(rt, "first number")
	wraps := func(s *sa.SA) { s.ESN, s.Seq, s.OSeq = true, begin-1, begin-1 }
	e := espSA(sa.Transport, preferred)
	e6 := espSA(sa.Transport, v6, spi(0x1006), testkit.Suite("aes256gcm16"), preferred, wraps)
	old := espSA(sa.Transport, spi(0x1007), testkit.Suite("3des-sha1"), preferred)
	chacha := espSA(sa.Transport, spi(0x1008), testkit.Suite("chacha20poly1305"), encap, preferred)
	a := ahSA(sa.Transport, preferred)
	tunnel := espSA(sa.Tunnel, preferred)
	tunnel6 := espSA(sa.Tunnel, v6, spi(0x2006), testkit.Suite("aes128-sha256"), preferred, wraps)
	ahTunnel := ahSA(sa.Tunnel, spi(0x2007), preferred)
	natt := espSA(sa.Tunnel, spi(0x2008), encap, preferred)
	wish := rapid.SampledFrom([]sa.Offload{sa.Preferred, sa.Never}).Draw(rt, "bundle")
	both := bundle(sa.Transport, func(s *sa.SA) { s.Offload = wish })
	l.sas = append([]*sa.SA{e, e6, old, chacha, a, tunnel, tunnel6, ahTunnel, natt}, both...)
	for _, one := range [][]*sa.SA{
		{e}, {e6}, {old}, {chacha}, {a}, {tunnel}, {tunnel6}, {ahTunnel}, {natt}, both,
		{e, tunnel}, {a, tunnel}, {e, ahTunnel}, {e6, tunnel6}, {e, natt}, {chacha, tunnel}, {chacha, natt},
		append(append([]*sa.SA{}, both...), tunnel), {tunnel, ahTunnel}, {e, a}, {e, tunnel, natt}, {},
	} {
		s := stack{sealer(t, one...), len(one), len(one) > 0 && (one[0] == e6 || one[0] == tunnel6), begin}
		if len(one) > 0 && !one[0].ESN && begin > 1 {
			s.next = 1
		}
		for _, member := range one {
			if !member.ESN {
				s.next = 1
			}
		}
		l.stacks = append(l.stacks, s)
	}
	if rapid.Bool().Draw(rt, "policy") {
		l.policy = []sa.Policy{
			{Match: sa.Selector{Protocol: 17, DstPorts: sa.Ports{First: 5000, Last: 5001}}, Action: sa.Protect},
			{Action: sa.Bypass},
		}
	}
	return l
}

func (l *lottery) hosts() (all []*host) {
	for _, n := range nics {
		all = append(all, newHost(l.t, setup{sas: l.sas, policy: l.policy, profile: n.profile, prepare: n.prepare}))
	}
	return all
}

// frame is the next one: fresh, a fragment, an old one again, or damaged.
func (l *lottery) frame(i int) []byte {
	draw := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(l.rt, what) }
	if len(l.sent) > 0 && draw(6, "again") == 0 {
		return l.damaged(l.sent[draw(len(l.sent), "which")])
	}
	s := &l.stacks[draw(len(l.stacks), "stack")]
	packet := plain4()
	if s.v6 {
		packet = plain6()
	}
	step := rapid.SampledFrom([]int64{1, 1, 1, 1, 2, 5, 70, -1, -3}).Draw(l.rt, "step")
	s.next = uint64(max(1, int64(s.next)+step))
	for j := range s.n {
		s.sealer.SetNumber(j, s.next)
	}
	b, err := s.sealer.Seal(nil, packet)
	if err != nil {
		l.t.Fatal(err)
	}
	pieces := [][]byte{b}
	if b[0]>>4 == 4 && draw(5, "fragments") == 0 {
		pieces = cut4(b)
	}
	for _, p := range pieces {
		l.sent = append(l.sent, framed(p))
	}
	return l.damaged(l.sent[len(l.sent)-1-draw(len(pieces), "piece")])
}

// damaged is the frame, more often than not as it was.
func (l *lottery) damaged(frame []byte) []byte {
	frame = bytes.Clone(frame)
	switch rapid.IntRange(0, 11).Draw(l.rt, "damage") {
	case 0:
		frame[rapid.IntRange(14, len(frame)-1).Draw(l.rt, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(l.rt, "bits"))
	case 1:
		frame = frame[:rapid.IntRange(14, len(frame)).Draw(l.rt, "cut")]
	case 2:
		frame = append(frame, make([]byte, rapid.IntRange(1, 50).Draw(l.rt, "padding"))...)
	}
	return frame
}

// cut4 makes two fragments of an IPv4 packet without options.
func cut4(b []byte) [][]byte {
	at := 20 + (len(b)-20)/2&^7
	first, second := bytes.Clone(b[:at]), append(bytes.Clone(b[:20]), b[at:]...)
	binary.BigEndian.PutUint16(first[6:], 0x2000)
	binary.BigEndian.PutUint16(second[6:], uint16(at-20)/8)
	for _, f := range [][]byte{first, second} {
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		mended(f)
	}
	return [][]byte{first, second}
}
