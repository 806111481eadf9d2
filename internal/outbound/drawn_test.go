package outbound

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// TestSenderIsItsConfiguration: whatever came and went before, by Add, Delete or Replace, a Sender does with frames
// what a new one of the same configuration does, and what it seals is the packet once it is opened.
func TestSenderIsItsConfiguration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{MTU: 1500, Local: []netip.Addr{gateways[4][0], gateways[6][0]}}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		var now [][]*sa.SA
		made := 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				made++
				bundle := drawBundle(t, made)
				held := []Held{HeldSA(bundle[0])}
				if err := s.Add(bundle, held); err != nil {
					t.Fatal(err)
				}
				now, c.Held = append(now, bundle), append(c.Held, held...)
			},
			"delete": func(t *rapid.T) {
				if len(now) == 0 {
					return
				}
				i := rapid.IntRange(0, len(now)-1).Draw(t, "which")
				if n, err := s.Delete(now[i]); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				now = slices.Delete(slices.Clone(now), i, i+1)
			},
			"replace": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "others") && len(now) > 0 {
					i := rapid.IntRange(0, len(now)-1).Draw(t, "from")
					now = slices.Concat(now[i:], now[:i])
				}
				if rapid.Bool().Draw(t, "rules") {
					c.Policy = drawPolicy(t, now)
				}
				c.MTU = rapid.SampledFrom([]int{1500, 1280, 9000}).Draw(t, "MTU")
				with := c
				with.SAs = slices.Concat(now...)
				if err := s.Replace(with); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				with := c
				with.SAs = slices.Concat(now...)
				fresh, err := New(with)
				if err != nil {
					t.Fatal(err)
				}
				var frames [][]byte
				for range rapid.IntRange(1, 5).Draw(t, "frames") {
					frames = append(frames, drawFrame(t))
				}
				before := s.Counts()
				got, want := send(s, frames...), send(fresh, frames...)
				counts := s.Counts()
				for i := range counts {
					counts[i] -= before[i]
				}
				if counts != fresh.Counts() || len(got) != len(want) {
					t.Fatalf("%d frames, %v\nwant %d, %v", len(got), counts, len(want), fresh.Counts())
				}
				if counts[Pieces] > 0 { // which have no SPI, but the first
					return
				}
				for i := range got {
					if a, b := outermost(got[i]), outermost(want[i]); a != b || len(got[i]) != len(want[i]) {
						t.Fatalf("frame %d: %s of %d bytes, want %s of %d", i, a, len(got[i]), b, len(want[i]))
					}
				}
				opens(t, now, frames, got)
			},
		})
	})
}

func drawBundle(t *rapid.T, n int) []*sa.SA {
	v := rapid.SampledFrom([]int{4, 4, 6}).Draw(t, "version")
	mode, ends := sa.Tunnel, gateways[v]
	if rapid.Bool().Draw(t, "transport") {
		mode, ends = sa.Transport, hosts[v]
	}
	s := newSA(fmt.Sprint("sa", n), uint32(0x1000*n), sa.ESP, mode, rapid.SampledFrom([]string{gcm, cbc, "null-sha256", "aes128ctr-sha1"}).Draw(t, "suite"), ends)
	s.EncryptionKey = sa.NewKey(bytes.Repeat([]byte{byte(rapid.IntRange(1, 3).Draw(t, "key"))}, s.Suite.EncryptionKeyLen()))
	if rapid.Bool().Draw(t, "selector") {
		bits := rapid.SampledFrom([]int{0, 8, 24, 32}).Draw(t, "bits")
		s.Selector = &sa.Selector{Dst: netip.PrefixFrom(hosts[v][1], bits), Protocol: rapid.SampledFrom([]uint8{0, 17}).Draw(t, "protocol")}
		if s.Selector.Protocol != 0 && rapid.Bool().Draw(t, "ports") {
			s.Selector.DstPorts = port(rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port"))
		}
	}
	if mode == sa.Tunnel && rapid.IntRange(0, 3).Draw(t, "no src") == 0 {
		s.Src = netip.Addr{}
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		over := newSA(s.Name+"-ah", s.SPI+1, sa.AH, mode, hmac, ends)
		over.Bundle, over.Selector, over.Src = s.Name, s.Selector, s.Src
		return []*sa.SA{over, s}
	case 1:
		s.Encap = mode == sa.Tunnel // a NIC leaves the second one of two alone
	}
	return []*sa.SA{s}
}

func drawPolicy(t *rapid.T, now [][]*sa.SA) (rules []sa.Policy) {
	for range rapid.IntRange(0, 3).Draw(t, "how many") {
		v := rapid.SampledFrom([]int{4, 6}).Draw(t, "version")
		r := sa.Policy{Action: rapid.SampledFrom([]sa.Action{sa.Protect, sa.Bypass, sa.Discard}).Draw(t, "action")}
		r.Match.Dst = netip.PrefixFrom(hosts[v][1], rapid.SampledFrom([]int{0, 8, 32}).Draw(t, "bits"))
		if r.Action == sa.Protect && len(now) > 0 && rapid.Bool().Draw(t, "named") {
			r.SA = rapid.SampledFrom(now).Draw(t, "SA")[0].Name
		}
		if rapid.Bool().Draw(t, "ports") {
			r.Match.Protocol, r.Match.DstPorts = 17, port(80)
		}
		rules = append(rules, r)
	}
	return rules
}

func drawFrame(t *rapid.T) []byte {
	v := rapid.SampledFrom([]int{4, 4, 6}).Draw(t, "version")
	dst := hosts[v][1]
	if rapid.IntRange(0, 4).Draw(t, "elsewhere") == 0 {
		dst = dst.Next()
	}
	port := rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port")
	payload := rapid.SliceOfN(rapid.Byte(), 1, 1).Draw(t, "byte")
	payload = bytes.Repeat(payload, rapid.SampledFrom([]int{1, 7, 60, 61, 62, 63, 64, 400, 1100, 1380, 2500}).Draw(t, "length"))
	return forge.AppendFrame(nil, forge.UDP(nil, netip.AddrPortFrom(hosts[v][0], 7), netip.AddrPortFrom(dst, port), payload))
}

// outermost names the packet that a frame is.
func outermost(frame []byte) string {
	p, ok := wire.Addresses(frame, 14)
	if !ok {
		return "none"
	}
	at := p.Header
	switch p.Proto {
	case wire.ProtoESP:
	case wire.ProtoAH:
		at += 4
	case wire.ProtoUDP:
		at += wire.UDPLen
	}
	return fmt.Sprintf("%s > %s %d %x", p.Src, p.Dst, p.Proto, frame[at:min(at+4, len(frame))])
}

// opens expects that frames that were sent are some of the original ones, in their order, once they are opened.
func opens(t *rapid.T, now [][]*sa.SA, frames, sent [][]byte) {
	full, _ := sa.ProfileByName("full")
	sad := pipeline.NewSAD(full, 1)
	for _, b := range now {
		if _, err := sad.Add(b...); err != nil {
			t.Fatal(err)
		}
	}
	nic := pipeline.New(sad, pipeline.Options{Form: status.Decap, NoTrailer: true})
	for i, f := range sent {
		opened := nic.Process(bytes.Clone(f))
		at := slices.IndexFunc(frames, func(f []byte) bool { return bytes.Equal(f, opened) })
		if at < 0 {
			t.Fatalf("frame %d is none of those of the stack:\n% x\nopened\n% x", i, f, opened)
		}
		frames = frames[at+1:]
	}
}
