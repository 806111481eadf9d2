package outbound

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapsec/sa"
	"tapsec/wire"
)

// TestSpaceAgainstScan: whatever is added and removed, what is found is what going through
// all of it from the latest finds.
func TestSpaceAgainstScan(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.1.0.1"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("::ffff:10.0.0.1")}
	rapid.Check(t, func(t *rapid.T) {
		var s space[*Held]
		var all []*node[*Held]
		age := uint64(0)
		addr := rapid.SampledFrom(addrs)
		prefix := func(t *rapid.T, name string) netip.Prefix {
			if a := addr.Draw(t, name); rapid.Bool().Draw(t, name+" given") {
				return netip.PrefixFrom(a, rapid.SampledFrom([]int{0, 8, 16, 31, 32}).Draw(t, name+" bits"))
			}
			return netip.Prefix{}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				h := &Held{Match: sa.Selector{Src: prefix(t, "src"), Dst: prefix(t, "dst"), Protocol: rapid.SampledFrom([]uint8{0, 6}).Draw(t, "protocol")}}
				if rapid.Bool().Draw(t, "an end") {
					h.Dst = addr.Draw(t, "end")
				}
				age++
				n := &node[*Held]{value: h, age: age}
				from, to := addressesOf(&h.Match, h.Src, h.Dst)
				s.add(n, from, to)
				all = append(all, n)
			},
			"remove": func(t *rapid.T) {
				if len(all) > 0 {
					i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
					s.remove(all[i])
					all = slices.Delete(all, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				for _, src := range addrs {
					for _, dst := range addrs {
						f := &wire.Flow{Src: src, Dst: dst, Protocol: 17, Shown: wire.ShownAll}
						if src.Is4() != dst.Is4() {
							continue
						}
						matches := func(h *Held) bool { return ends(h.Src, h.Dst, f) && h.Match.Matches(f) }
						var want *node[*Held]
						for _, n := range slices.Backward(all) {
							if matches(n.value) {
								want = n
								break
							}
						}
						if got := s.find(f, matches); got != want {
							t.Fatalf("%s to %s: found %v, want %v", src, dst, got, want)
						}
					}
				}
				if s.n != len(all) || len(all) == 0 && len(s.shapes) != 0 {
					t.Fatalf("%d nodes in %d tables, want %d", s.n, len(s.shapes), len(all))
				}
			},
		})
	})
}

// TestDeleteIsReplace: what is left by deleting SAs is what a configuration without them has,
// and numbers go on. An SA of Use stays.
func TestDeleteIsReplace(t *testing.T) {
	bundles := many(40)
	c := Config{MTU: 1500, Local: []netip.Addr{gateways[4][0]}, SAs: slices.Concat(bundles...)}
	deleted, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; len(bundles) > 0; i = (i + 7) % max(len(bundles), 1) {
		gone := bundles[i%len(bundles)]
		if n, err := deleted.Delete(append(gone, newSA("stranger", 1, sa.ESP, sa.Tunnel, gcm, gateways[4]))); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		bundles = slices.DeleteFunc(bundles, func(b []*sa.SA) bool { return b[0] == gone[0] })
		c.SAs = slices.Concat(bundles...)
		whole, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fmt.Sprint(deleted.States()), fmt.Sprint(whole.States()); a != b || deleted.selects != whole.selects {
			t.Fatalf("%v and %v", a, b)
		}
		for j := range 40 {
			for _, shown := range []wire.Shown{wire.ShownAll, 0} {
				f := wire.Flow{Src: hosts[4][0], Dst: netip.AddrFrom4([4]byte{10, 1, 0, byte(j)}), Protocol: 6, Shown: shown}
				a, b := deleted.resolve(f), whole.resolve(f)
				if a.fate != b.fate || a.name != b.name || a.fit4 != b.fit4 {
					t.Fatalf("flow %d: %+v and %+v", j, a, b)
				}
			}
		}
	}
	c = Config{MTU: 1500, SAs: []*sa.SA{site(4), web(4)}, Use: [][]string{{"site"}}}
	if deleted, err = New(c); err != nil {
		t.Fatal(err)
	}
	if _, err := deleted.Delete(c.SAs); err == nil || len(deleted.States()) != 2 {
		t.Errorf("%v; %d SAs are left", err, len(deleted.States()))
	}
}

// TestSharedNumbers: of SAs with one key one may go, and the other goes on with their
// numbers; once both have gone, none is given.
func TestSharedNumbers(t *testing.T) {
	one := site(4)
	other := with(site(4), func(a *sa.SA) { a.Name, a.SPI = "other", 0x77 })
	s := newSender(t, Config{SAs: []*sa.SA{one, other}})
	send(s, to("10.0.0.2", 1))
	counter := s.sas.names["other"].counter
	if counter != s.sas.names[one.Name].counter {
		t.Fatal("the SAs have numbers of their own")
	}
	for i, a := range []*sa.SA{one, other} {
		if _, err := s.Delete([]*sa.SA{a}); err != nil {
			t.Fatal(err)
		}
		if _, err := counter.Next(100); (err == nil) != (i == 0) {
			t.Errorf("after %d have gone: %v", i+1, err)
		}
	}
}

// TestDeleteOfOneSPI: of SAs with one SPI and destination one goes, and the others are there.
func TestDeleteOfOneSPI(t *testing.T) {
	same := func(a *sa.SA) { a.SPI = 0x201 }
	again := func(a *sa.SA) *sa.SA { b := *a; b.Name += " again"; return &b }
	all := []*sa.SA{site(4), with(siteAH(4), same), with(siteCBC(4), func(a *sa.SA) { same(a); a.Src = hosts[4][0] })}
	for _, gone := range all {
		s := newSender(t, Config{SAs: all})
		if n, err := s.Delete([]*sa.SA{gone}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		for _, a := range all {
			if err := s.Add([]*sa.SA{again(a)}, nil); (err == nil) != (a == gone) {
				t.Errorf("%s has gone; adding %s: %v", gone, a, err)
			}
		}
	}
}

// BenchmarkFirst is the first packet of a flow, and BenchmarkDelete an SA that goes and comes,
// among many SAs.
func BenchmarkFirst(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := manySender(b, n)
			i := 0
			for b.Loop() {
				i += 7919
				f := wire.Flow{Src: hosts[4][0], Dst: netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), Protocol: 6, Shown: wire.ShownAll}
				s.resolve(f)
			}
		})
	}
}

func BenchmarkDelete(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := manySender(b, n)
			some := []*sa.SA{s.sas.names["sa5"].given}
			for b.Loop() {
				if n, err := s.Delete(some); n != 1 || err != nil {
					b.Fatal(n, err)
				}
				if err := s.Add(some, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func manySender(b *testing.B, n int) *Sender {
	var all []*sa.SA
	for i := range n {
		s := newSA(fmt.Sprint("sa", i), uint32(0x1000+i), sa.ESP, sa.Tunnel, gcm, gateways[4])
		s.Selector = &sa.Selector{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
		key := make([]byte, 20)
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		s.EncryptionKey = sa.NewKey(key)
		all = append(all, s)
	}
	return newSender(b, Config{SAs: all})
}
