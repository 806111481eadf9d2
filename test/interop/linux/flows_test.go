package linux

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"

	"tapsec/internal/lab/forge"
	"tapsec/keys"
	"tapsec/sa"
)

// toKernel is one flow of the other direction, with addresses and SAs of its own.
type toKernel struct {
	number   int
	group    string
	sas      []*sa.SA // innermost first
	src, dst netip.Addr
	session
}

// layer says what to make an SA of.
type layer struct {
	protocol sa.Protocol
	mode     sa.Mode
	suite    string
	version  int // of its addresses
	encap    bool
}

// addr is an address for a flow: of its ends (8 sends, 9 is the guest's) or of the
// gateways (6, 7).
func addr(version, kind, flow int) netip.Addr {
	if version == 4 {
		return netip.AddrFrom4([4]byte{10, byte(kind), byte(flow >> 8), byte(flow)})
	}
	return netip.AddrFrom16([16]byte{0xfd, byte(kind), 14: byte(flow >> 8), 15: byte(flow)})
}

func key(n int, words ...any) sa.Key {
	a, b := sha256.Sum256([]byte(fmt.Sprint(words...))), sha256.Sum256([]byte(fmt.Sprint(append(words, 2)...)))
	return sa.NewKey(append(a[:], b[:]...)[:n])
}

// newFlow makes a flow of IP version v through layers, innermost first.
func newFlow(number int, group string, in session, v int, layers ...layer) *toKernel {
	f := &toKernel{number: number, group: group, src: addr(v, 8, number), dst: addr(v, 9, number), session: in}
	for i, l := range layers {
		suite, err := sa.ParseSuite(l.protocol, l.suite)
		if err != nil {
			panic(err)
		}
		s := &sa.SA{
			Name: fmt.Sprintf("flow%d-%d", number, i), SPI: uint32(0x10000 + number<<4 + i), Protocol: l.protocol, Mode: l.mode,
			Suite: suite, Encap: l.encap, Src: f.src, Dst: f.dst, Window: 64, PadCheck: true,
			EncryptionKey: key(suite.EncryptionKeyLen(), "e", number, i), IntegrityKey: key(suite.IntegrityKeyLen(), "i", number, i),
		}
		if l.mode == sa.Tunnel {
			s.Src, s.Dst = addr(l.version, 6, number), addr(l.version, 7, number)
			s.Selector = &sa.Selector{Dst: netip.PrefixFrom(f.dst, f.dst.BitLen())}
		}
		if in == esn { // a receiver has to be near the number that it is to guess
			s.ESN, s.Seq, s.OSeq = true, 0xfffffff0, 0xfffffff0
		}
		if i > 0 && l.protocol == sa.AH && l.mode == layers[i-1].mode && layers[i-1].protocol == sa.ESP {
			s.Bundle = f.sas[i-1].Name
		}
		f.sas = append(f.sas, s)
	}
	return f
}

// known tells whether Linux has a suite.
func known(p sa.Protocol, name string) bool {
	f := newFlow(0, "", plain, 4, layer{p, sa.Transport, name, 4, false})
	_, err := keys.Lost(keys.XFRM, f.sas[0])
	return err == nil
}

// few stand for all suites where these are not the matter.
var few = []string{"aes128gcm16", "aes256-sha256", "chacha20poly1305", "aes192ctr-sha512"}

// flowsToKernel are all flows, in order.
func flowsToKernel() (all []*toKernel) {
	add := func(group string, in session, v int, layers ...layer) {
		all = append(all, newFlow(len(all)+1, group, in, v, layers...))
	}
	esp := func(m sa.Mode, suite string, v int) layer { return layer{sa.ESP, m, suite, v, false} }
	ah := func(m sa.Mode, suite string, v int) layer { return layer{sa.AH, m, suite, v, false} }
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, suite := range sa.Suites(p) {
			if !known(p, suite.Name) {
				continue
			}
			cipher, _, two := strings.Cut(suite.Name, "-")
			group := fmt.Sprintf("transport %s, %s", strings.ToUpper(p.String()), cipher)
			if two {
				group += " with each integrity"
			}
			for _, v := range []int{4, 6} {
				add(group, plain, v, layer{p, sa.Transport, suite.Name, v, false})
			}
		}
	}
	for _, v := range []int{4, 6} {
		for _, w := range []int{4, 6} {
			for _, suite := range few {
				add("tunnel ESP", plain, v, esp(sa.Tunnel, suite, w))
			}
			add("tunnel AH", plain, v, ah(sa.Tunnel, "sha256", w))
			add("transport ESP in tunnel ESP", plain, v, esp(sa.Transport, few[0], v), esp(sa.Tunnel, few[1], w))
			add("transport AH in tunnel ESP", plain, v, ah(sa.Transport, "sha512", v), esp(sa.Tunnel, few[2], w))
			add("transport ESP in tunnel AH", plain, v, esp(sa.Transport, few[3], v), ah(sa.Tunnel, "sha256", w))
			add("transport AH in tunnel AH", plain, v, ah(sa.Transport, "sha384", v), ah(sa.Tunnel, "sha1", w))
		}
		for _, suite := range few {
			add("transport ESP in transport AH", plain, v, esp(sa.Transport, suite, v), ah(sa.Transport, "sha256", v))
			add("transport ESP, ESP in UDP", plain, v, layer{sa.ESP, sa.Transport, suite, v, true})
			add("tunnel ESP, ESP in UDP", plain, v, layer{sa.ESP, sa.Tunnel, suite, v, true})
			add("transport ESP, ESN", esn, v, esp(sa.Transport, suite, v))
			add("tunnel ESP, ESN", esn, v, esp(sa.Tunnel, suite, v))
		}
		add("transport ESP in transport AH in tunnel ESP", plain, v,
			esp(sa.Transport, few[0], v), ah(sa.Transport, "sha256", v), esp(sa.Tunnel, few[1], v))
		add("transport AH, ESN", esn, v, ah(sa.Transport, "sha256", v))
		add("transport ESP in tunnel ESP, ESN", esn, v, esp(sa.Transport, few[1], v), esp(sa.Tunnel, few[0], v))
	}
	return all
}

func (f *toKernel) title() string {
	var layers []string
	for _, s := range f.sas {
		layers = append(layers, fmt.Sprintf("%s %s %s", s.Mode, s.Protocol, s.Suite.Name))
	}
	return fmt.Sprintf("%d %s for %s", f.number, strings.Join(layers, " in "), f.dst)
}

// policy takes datagrams of the flow by its SAs alone.
func (f *toKernel) policy() string {
	var b strings.Builder
	fmt.Fprintf(&b, "xfrm policy add src %s dst %s proto udp dport 9 dir in", f.src, f.dst)
	for _, s := range f.sas {
		fmt.Fprintf(&b, " tmpl src %s dst %s proto %s mode %s", s.Src, s.Dst, s.Protocol, s.Mode)
	}
	return b.String() + "\n"
}

// payload is that of datagram n: its flow and number, and then some bytes.
func (f *toKernel) payload(n int) []byte {
	b := []byte{byte(f.number >> 8), byte(f.number), byte(n)}
	for i := range sizes[n%len(sizes)] {
		b = append(b, byte(f.number+n+i))
	}
	return b
}

func (f *toKernel) datagram(n int) []byte {
	const from, to = 40000, 9
	return forge.UDP(nil, netip.AddrPortFrom(f.src, from), netip.AddrPortFrom(f.dst, to), f.payload(n))
}
