package outbound

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"tapsec/sa"
	"tapsec/wire"
)

// many are outbound SAs of every kind: plain, with selectors, a bundle, without src.
func many(n int) (all [][]*sa.SA) {
	for i := range n {
		spi, name := uint32(0x1000+i), fmt.Sprint("sa", i)
		dst := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		s := newSA(name, spi, sa.ESP, sa.Tunnel, gcm, gateways[4])
		s.Selector = &sa.Selector{Dst: netip.PrefixFrom(dst, 32)}
		bundle := []*sa.SA{s}
		switch i % 4 {
		case 1:
			s.Src = netip.Addr{}
		case 2:
			over := newSA(name+"-ah", spi, sa.AH, sa.Tunnel, hmac, gateways[4])
			over.Bundle, over.Selector = name, s.Selector
			bundle = []*sa.SA{over, s}
		case 3:
			s.Mode, s.Src, s.Dst, s.Selector = sa.Transport, hosts[4][0], dst, nil
		}
		all = append(all, bundle)
	}
	return all
}

// TestAddIsReplace: SAs that are added one after the other are those of one
// configuration that has them all.
func TestAddIsReplace(t *testing.T) {
	c := Config{MTU: 1500, Local: []netip.Addr{gateways[4][0]}}
	added, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i, bundle := range many(40) {
		if err := added.Add(bundle, nil); err != nil {
			t.Fatal(err)
		}
		if err := added.Add(bundle, nil); err == nil {
			t.Fatal("an SA is there twice")
		}
		c.SAs = append(c.SAs, bundle...)
		whole, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := added.States(), whole.States(); !reflect.DeepEqual(a, b) || added.selects != whole.selects {
			t.Fatalf("after %d: %v and %v", i, a, b)
		}
		for j := range i + 2 {
			f := wire.Flow{Src: hosts[4][0], Dst: netip.AddrFrom4([4]byte{10, 1, 0, byte(j)}), Protocol: 6, Shown: wire.ShownAll}
			a, b := added.resolve(f), whole.resolve(f)
			if a.fate != b.fate || a.name != b.name || a.fit4 != b.fit4 {
				t.Fatalf("after %d: flow %d: %+v and %+v", i, j, a, b)
			}
		}
	}
}

// TestReplaceKeysWhatChanged: an SA that stays keeps its cipher, one with another key
// gets another.
func TestReplaceKeysWhatChanged(t *testing.T) {
	c := Config{MTU: 1500, SAs: []*sa.SA{site(4), web(4)}}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	before := []*layer{s.sas.layer("site"), s.sas.layer("web")}
	c.SAs = []*sa.SA{newSA("new", 0x99, sa.ESP, sa.Tunnel, gcm, gateways[4]), site(4), with(web(4), func(a *sa.SA) { a.EncryptionKey = sa.NewKey(make([]byte, 20)) })}
	if err := s.Replace(c); err != nil {
		t.Fatal(err)
	}
	if s.sas.layer("site") != before[0] || s.sas.layer("web") == before[1] {
		t.Error("an SA that stays was keyed anew, or one with another key was not")
	}
}

// TestReplaceBesideFrames: an SA that stays goes on sealing while others come and go, under the race detector too.
func TestReplaceBesideFrames(t *testing.T) {
	c := Config{MTU: 1500, SAs: []*sa.SA{site(4), web(4)}}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	began, stop, sealed := make(chan struct{}), make(chan struct{}), make(chan int)
	go func() {
		n := len(s.Batch([][]byte{udp(4, 100)}))
		close(began)
		for {
			select {
			case <-stop:
				sealed <- n
				return
			default:
				n += len(s.Batch([][]byte{udp(4, 100)}))
			}
		}
	}()
	<-began
	for range 100 {
		if err := s.Replace(c); err != nil {
			t.Error(err)
		}
		if err := s.Add([]*sa.SA{newSA("new", 0x99, sa.ESP, sa.Tunnel, gcm, gateways[4])}, nil); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if n := uint64(<-sealed); n == 0 || s.Counts()[Sealed] != n {
		t.Errorf("%d frames came out, and were counted as %d", n, s.Counts()[Sealed])
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := Config{MTU: 1500, Local: []netip.Addr{gateways[4][0]}}
			for _, bundle := range many(n) {
				c.SAs = append(c.SAs, bundle...)
			}
			s, err := New(c)
			if err != nil {
				b.Fatal(err)
			}
			i := uint32(0x1000000)
			for b.Loop() {
				i++
				if err := s.Add([]*sa.SA{newSA(fmt.Sprint(i), i, sa.ESP, sa.Tunnel, gcm, gateways[4])}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
