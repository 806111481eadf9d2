package outbound

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
	"tapsec/wire"
)

// answered collects what a Sender replies.
type answered struct{ frames [][]byte }

func (a *answered) reply(frame []byte) error {
	a.frames = append(a.frames, bytes.Clone(frame))
	return nil
}

// told reads the MTU out of an ICMP error about a frame, which must be whole and
// go back to where the frame came from.
func told(t *testing.T, answer, frame []byte) int {
	t.Helper()
	p := gopacket.NewPacket(answer, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatal(e.Error())
	}
	_, l3, _ := wire.Ethernet(frame)
	if !bytes.Equal(answer[:6], frame[6:12]) || !bytes.Equal(answer[6:12], frame[:6]) || !bytes.Equal(answer[12:l3], frame[12:l3]) {
		t.Errorf("Ethernet header %x in answer to %x", answer[:l3], frame[:l3])
	}
	was, _ := wire.Addresses(frame, l3)
	is, _ := wire.Addresses(answer, l3)
	if is.Src != was.Dst || is.Dst != was.Src || is.End != len(answer) || !wire.HeaderSum(answer, &is) {
		t.Errorf("answer from %s to %s, %d of %d bytes", is.Src, is.Dst, is.End, len(answer))
	}
	icmp, most := answer[is.Header:], 576
	if was.Version == 6 {
		most = 1280
	}
	quote := icmp[8:]
	if len(answer)-l3 > most || len(quote) < min(was.End-l3, most-48) || !bytes.HasPrefix(frame[l3:], quote) {
		t.Errorf("quotes %d bytes", len(quote))
	}
	if was.Version == 4 {
		if wire.Checksum(0, icmp) != 0 || icmp[0] != 3 || icmp[1] != 4 || icmp[4]|icmp[5] != 0 {
			t.Errorf("ICMP header %x", icmp[:8])
		}
		return int(be.Uint16(icmp[6:]))
	}
	pseudo := slices.Concat(answer[l3+8:l3+40], binary.BigEndian.AppendUint32(nil, uint32(len(icmp))), []byte{0, 0, 0, 58}, icmp)
	if wire.Checksum(0, pseudo) != 0 || icmp[0] != 2 || icmp[1] != 0 {
		t.Errorf("ICMPv6 header %x", icmp[:8])
	}
	return int(be.Uint32(icmp[4:]))
}

// A packet of the MTU that was told is sent as one, one byte more is not: told
// again, or sent in pieces where it may be.
func TestTold(t *testing.T) {
	for _, v := range []int{4, 6} {
		for _, mtu := range []int{1400, 1500, 9000} {
			for _, sas := range [][]*sa.SA{nil, {site(4)}, {site(6)}, {siteCBC(4)}, {siteAH(6)}, {web(v), site(4)}, {with(site(4), encap)}} {
				var a answered
				s := newSender(t, Config{SAs: sas, MTU: mtu, Reply: a.reply})
				frame := tellable(v, mtu+1)
				if sent := send(s, frame); len(sent) != 0 || len(a.frames) != 1 {
					t.Fatalf("sent %d frames, %d answers:%s", len(sent), len(a.frames), counts(s))
				}
				fits := told(t, a.frames[0], frame)
				for n, want := range map[int]string{fits: " sealed:1 too-long:1 icmp:1", fits + 1: " too-long:2 icmp:2"} {
					s := newSender(t, Config{SAs: sas, MTU: mtu, Reply: a.reply})
					send(s, frame)
					if len(sas) == 0 && n == fits {
						want = " unprotected:1 too-long:1 icmp:1"
					}
					if sent := send(s, tellable(v, n)); counts(s) != want || len(sent) > 0 && len(sent[0]) > 22+mtu {
						t.Errorf("IPv%d, MTU %d, %v: %d bytes:%s", v, mtu, sas, n, counts(s))
					}
				}
			}
		}
	}
}

// tellable is a frame with two tags whose packet may not be fragmented: one with
// DF, or TCP, which in IPv6 and transport mode alone makes shorter packets.
func tellable(v, n int) []byte {
	frame := edited(sized(v, n), func(ip []byte) {
		if v == 4 {
			df(ip)
		} else {
			ip[6] = wire.ProtoTCP
		}
	})
	return forge.AppendFrame(nil, frame[14:], 0x8100_0064, 0x88a8_0007)
}

// tooLong is a frame, what is counted for it, and the MTU that was told.
type tooLong struct {
	name  string
	mtu   int
	sas   []*sa.SA
	frame []byte
	want  string
	told  int
}

func (c *tooLong) check(t *testing.T) {
	var a answered
	s := newSender(t, Config{SAs: c.sas, MTU: c.mtu, Reply: a.reply})
	sent := send(s, c.frame)
	if got := counts(s); got != c.want {
		t.Errorf("counted%s, want%s", got, c.want)
	}
	for _, f := range sent {
		if len(f) > 14+c.mtu {
			t.Errorf("sent a frame of %d bytes", len(f))
		}
	}
	mtu := 0
	if len(a.frames) > 0 {
		mtu = told(t, a.frames[0], c.frame)
	}
	if mtu != c.told {
		t.Errorf("told %d, want %d", mtu, c.told)
	}
}

// icmp is a long packet with an ICMP message of a kind.
func icmp(v int, kind byte) []byte {
	frame := forge.AppendFrame(nil, forge.Echo(nil, hosts[v][0], hosts[v][1], 1, 1, make([]byte, 1440)))
	return edited(frame, func(ip []byte) {
		if v == 4 {
			df(ip)
			ip[20] = kind
		} else {
			ip[40] = kind
		}
	})
}

// Which IPv4 packets are told, which are cut, and which are neither.
func TestTooLong(t *testing.T) {
	later := func(ip []byte) { be.PutUint16(ip[6:], dontFragment|100) }
	options := forge.AppendFrame(nil, forge.Options(nil, edited(sized(4, 1480), df)[14:], []byte{148, 4, 0, 0}))
	blocks := newSA("blocks", 1, sa.ESP, sa.Transport, cbc, hosts[4])
	for _, c := range []tooLong{
		{"IPv4", 1500, []*sa.SA{site(4)}, sized(4, 1500), " fragmented:1 fragments:2", 0},
		{"IPv4 with DF", 1500, []*sa.SA{site(4)}, edited(sized(4, 1500), df), " too-long:1 icmp:1", 1446},
		{"IPv4 with DF in transport mode", 1500, []*sa.SA{web(4)}, edited(sized(4, 1500), df), " too-long:1 icmp:1", 1466},
		{"IPv4 with options", 1500, []*sa.SA{web(4)}, options, " too-long:1 icmp:1", 1466},
		{"IPv4 with options and blocks of 16", 1500, []*sa.SA{blocks}, options, " too-long:1 icmp:1", 1446},
		{"a later fragment of IPv4 with DF", 1500, []*sa.SA{site(4)}, edited(sized(4, 1500), later), " too-long:1 icmp-not-sent:1", 0},
		{"an ICMP error", 1500, []*sa.SA{site(4)}, icmp(4, 3), " too-long:1 icmp-not-sent:1", 0},
		{"an echo request", 1500, []*sa.SA{site(4)}, icmp(4, 8), " too-long:1 icmp:1", 1446},
		{"a fragment in transport mode", 1500, []*sa.SA{web(4)}, fragmentOf(sized(4, 100), 0), " fragment:1", 0},
		{"a long fragment in transport mode", 1500, []*sa.SA{web(4)}, fragmentOf(sized(4, 1500), 8), " fragment:1", 0},
		{"a fragment in a tunnel", 1500, []*sa.SA{site(4)}, fragmentOf(sized(4, 1500), 8), " fragmented:1 fragments:2", 0},
		{"a fragment in clear", 1400, nil, fragmentOf(sized(4, 1500), 8), " fragmented:1 fragments:2", 0},
		{"in clear", 1400, nil, sized(4, 1500), " fragmented:1 fragments:2", 0},
		{"in clear with DF", 1400, nil, edited(sized(4, 1500), df), " too-long:1 icmp:1", 1400},
		{"more than IP has room for", 1500, []*sa.SA{site(4)}, sized(4, 65535), " too-long:1", 0},
	} {
		t.Run(c.name, c.check)
	}
}

// The same for IPv6.
func TestTooLong6(t *testing.T) {
	tcp := func(n int) []byte { return edited(sized(6, n), func(ip []byte) { ip[6] = wire.ProtoTCP }) }
	fragment := forge.AppendFrame(nil, forge.Extension(nil, sized(6, 1400)[14:], wire.ProtoFragment, make([]byte, 8)))
	for _, c := range []tooLong{
		{"IPv6", 1500, []*sa.SA{site(4)}, sized(6, 1500), " too-long:1 icmp:1", 1446},
		{"IPv6 in IPv6", 1500, []*sa.SA{site(6)}, sized(6, 1427), " too-long:1 icmp:1", 1426},
		{"an ICMPv6 error", 1500, []*sa.SA{site(4)}, icmp(6, 2), " too-long:1 icmp-not-sent:1", 0},
		{"an echo request of IPv6", 1500, []*sa.SA{site(4)}, icmp(6, 128), " too-long:1 icmp:1", 1446},
		{"UDP over IPv6 in transport mode", 1500, []*sa.SA{web(6)}, sized(6, 1500), " fragmented:1 fragments:2", 0},
		{"TCP over IPv6 in transport mode", 1500, []*sa.SA{web(6)}, tcp(1500), " too-long:1 icmp:1", 1466},
		{"a fragment of IPv6 in transport mode", 1500, []*sa.SA{web(6)}, fragment, " fragment:1", 0},
		{"a fragment of IPv6 in a tunnel", 1500, []*sa.SA{site(6)}, fragment, " sealed:1", 0},
		{"in clear", 1400, nil, sized(6, 1500), " too-long:1 icmp:1", 1400},

		{"IPv6 longer than 1280 of which less fit", 1280, []*sa.SA{site(6)}, tcp(1281), " too-long:1 icmp:1", 1280},
		{"IPv6 of 1280 of which less fit", 1280, []*sa.SA{site(6)}, tcp(1280), " fragmented:1 fragments:2", 0},
		{"IPv6 of 1280 over IPv4", 1280, []*sa.SA{site(4)}, tcp(1280), " fragmented:1 fragments:2", 0},
		{"IPv6 of 1280 in transport mode", 1280, []*sa.SA{web(6)}, tcp(1280), " fragmented:1 fragments:2", 0},
		{"IPv6 that fits less than 1280", 1280, []*sa.SA{site(6)}, tcp(1206), " sealed:1", 0},
	} {
		t.Run(c.name, c.check)
	}
}

// The fragments of a sealed packet make it again, and it opens (contract,
// Headers in detail: a fragment of the outer packet is whole before it is IPsec).
func TestFragments(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v, w := rapid.SampledFrom([]int{4, 6}).Draw(rt, "inner"), rapid.SampledFrom([]int{4, 6}).Draw(rt, "outer")
		mtu := rapid.IntRange(minMTU, 1400).Draw(rt, "MTU")
		n := rapid.IntRange(mtu-100, 4*mtu).Draw(rt, "length")
		frame := sized(v, n)
		stacks := [][]*sa.SA{{site(w)}, {siteAH(w)}, {web(v)}, {webAH(v)}, {with(web(v), encap)}, {webAH(v), siteCBC(w)}}
		sas := rapid.SampledFrom(stacks).Draw(rt, "SAs")
		if v == 6 && sas[0].Mode == sa.Tunnel {
			frame = sized(v, min(n, leastIPv6-40)) // room for headers; longer ones are told
		}
		if rapid.Bool().Draw(rt, "headers") {
			frame = extended(frame, v)
		}
		s, r, whole := newSender(t, Config{SAs: sas, MTU: mtu}), receiver(t, sas...), reassembler()
		var back [][]byte
		for range 2 {
			sent := send(s, frame)
			for _, f := range sent {
				if len(f) > 14+mtu {
					rt.Fatalf("a frame of %d bytes", len(f))
				}
			}
			slices.Reverse(sent)
			for _, f := range whole.Batch(sent) {
				back = append(back, bytes.Clone(f))
			}
		}
		if len(back) != 2 {
			rt.Fatalf("%d of 2 packets made again:%s", len(back), counts(s))
		}
		for _, f := range back {
			if opened, _ := open(t, r, f, len(sas)); !bytes.Equal(carried(t, opened), frame) {
				rt.Fatalf("opened\n%x, sent\n%x", opened, frame)
			}
		}
	})
}

// A datagram that was put together of what an IPv6 stack has cut is cut again behind
// the tunnel's seal: the stack knows the MTU, and would learn nothing. TCP is told.
func TestJoinedDatagram(t *testing.T) {
	for _, w := range []int{4, 6} {
		s := newSender(t, Config{SAs: []*sa.SA{site(w)}, Joined: true})
		if sent := send(s, sized(6, 4000)); len(sent) != 3 {
			t.Errorf("over IPv%d: %d frames, counted%s", w, len(sent), counts(s))
		}
		tcp := edited(sized(6, 1500), func(ip []byte) { ip[6] = wire.ProtoTCP })
		if sent := send(s, tcp); len(sent) != 0 || s.Counts()[TooLong] != 1 {
			t.Errorf("TCP over IPv%d: %d frames, counted%s", w, len(sent), counts(s))
		}
	}
}

// The fragments of a program that was started anew are none of its predecessor's,
// for which the receiver may still wait (RFC 8200 section 4.5, RFC 7739).
func TestFragmentsAfterRestart(t *testing.T) {
	ids := map[uint32]bool{}
	for range 3 {
		sent := send(newSender(t, Config{SAs: []*sa.SA{web(6)}, MTU: 1280}), sized(6, 1400))
		if len(sent) != 2 {
			t.Fatalf("%d fragments", len(sent))
		}
		ids[be.Uint32(sent[0][14+wire.IPv6Len+4:])] = true
	}
	if len(ids) == 1 {
		t.Errorf("three Senders begin with the same identification: %v", ids)
	}
}

// extended puts options or extension headers into a frame's packet.
func extended(frame []byte, v int) []byte {
	ip := frame[14:]
	if v == 4 {
		return forge.AppendFrame(nil, forge.Options(nil, ip, []byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0}))
	}
	ip = forge.Extension(nil, ip, wire.ProtoHopByHop, []byte{0, 0, 1, 4, 0, 0, 0, 0})
	ip = forge.Extension(nil, ip, wire.ProtoRouting, append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, hosts[6][1].AsSlice()...))
	return forge.AppendFrame(nil, forge.Extension(nil, ip, wire.ProtoDestOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0}))
}

// Every fragment carries what routers on the way read, and no more (RFC 791
// section 3.1, RFC 8200 section 4.5).
func TestFragmentHeaders(t *testing.T) {
	s := newSender(t, Config{SAs: []*sa.SA{web(4)}, MTU: 576})
	for i, f := range send(s, extended(sized(4, 1500), 4)) {
		options := []byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}
		if i > 0 { // router alert is copied, record route is not
			options = []byte{148, 4, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0}
		}
		if p, ok := wire.Addresses(f, 14); !ok || !wire.HeaderSum(f, &p) || !bytes.Equal(f[34:46], options) {
			t.Errorf("fragment %d: options %x, want %x", i, f[34:46], options)
		}
	}
	s = newSender(t, Config{SAs: []*sa.SA{web(6)}, MTU: 1280})
	ids := map[uint32]int{}
	for range 2 {
		for i, f := range send(s, extended(sized(6, 3000), 6)) {
			ip := f[14:]
			chain := fmt.Sprint(ip[6], ip[40], ip[48], ip[72]) // IPv6, hop-by-hop, routing, fragment
			if chain != "0 43 44 60" {
				t.Errorf("fragment %d: headers %s", i, chain)
			}
			ids[be.Uint32(ip[76:])]++
		}
	}
	if len(ids) != 2 {
		t.Errorf("identifications %v of two packets", ids)
	}
}

// A fragment of a fragment says where in the whole it belongs. DF, which an IPv6
// packet gives its tunnel, is gone from fragments.
func TestFragmentOffsets(t *testing.T) {
	offsets := func(sent [][]byte) (all []uint16) {
		for _, f := range sent {
			all = append(all, be.Uint16(f[20:]))
		}
		return all
	}
	const step = (1280 - 20) / 8
	clear, sealing := newSender(t, Config{MTU: 1280}), newSender(t, Config{MTU: 1280, SAs: []*sa.SA{site(4)}})
	last := edited(sized(4, 1500), func(ip []byte) { be.PutUint16(ip[6:], 100) })
	for _, c := range []struct {
		s     *Sender
		frame []byte
		want  []uint16
	}{
		{clear, sized(4, 1500), []uint16{moreFragments, step}},
		{clear, fragmentOf(sized(4, 1500), 100), []uint16{moreFragments | 100, moreFragments | 100 + step}},
		{clear, last, []uint16{moreFragments | 100, 100 + step}},
		{sealing, sized(6, 1280), []uint16{moreFragments, step}},
	} {
		if got := offsets(send(c.s, c.frame)); !slices.Equal(got, c.want) {
			t.Errorf("flags and offsets %x, want %x", got, c.want)
		}
	}
}

// No two outer packets that may be on their way at once have one identification,
// whatever SAs made them (RFC 6864 section 4.3).
func TestIdentifications(t *testing.T) {
	lan := selecting(sa.Selector{Dst: prefix("10.0.0.0/24")})
	s := newSender(t, Config{SAs: []*sa.SA{site(4), with(with(site(4), named("lan", 9)), lan)}})
	ids := map[uint16]int{}
	for range 100 {
		for _, f := range send(s, sizedTo("10.0.0.2", 1500), sizedTo("10.9.9.9", 1500), sizedTo("10.9.9.9", 100)) {
			ids[be.Uint16(f[18:])]++
		}
	}
	for id, n := range ids {
		if n > 2 {
			t.Errorf("identification %d in %d frames", id, n)
		}
	}
	if len(ids) != 300 {
		t.Errorf("%d identifications for 300 packets", len(ids))
	}
}

func sizedTo(addr string, n int) []byte {
	return edited(sized(4, n), func(ip []byte) { copy(ip[16:20], to(addr, 1)[30:34]) })
}

// ICMP errors are bounded, and one that the stack does not take is not counted
// as told.
func TestAnswersBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a answered
		s := newSender(t, Config{SAs: []*sa.SA{site(4)}, Reply: a.reply})
		frame := edited(sized(4, 1500), df)
		for second := 1; second <= 3; second++ {
			for range 2 * answersPerSecond {
				send(s, frame)
			}
			if len(a.frames) != second*answersPerSecond {
				t.Errorf("%d answers in %d seconds", len(a.frames), second)
			}
			time.Sleep(time.Second)
		}
		if got := counts(s); got != " too-long:600 icmp:300 icmp-not-sent:300" {
			t.Errorf("counted%s", got)
		}
	})
	for _, reply := range []func([]byte) error{nil, func([]byte) error { return errors.New("down") }} {
		s := newSender(t, Config{SAs: []*sa.SA{site(4)}, Reply: reply})
		send(s, edited(sized(4, 1500), df))
		if got := counts(s); got != " too-long:1 icmp-not-sent:1" {
			t.Errorf("counted%s", got)
		}
	}
}
