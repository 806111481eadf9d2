package soak

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
)

// path is an address pair that the hosts talk over, and how it is protected. Each
// has addresses of its own, so that a packet's addresses alone decide which SAs it
// gets.
type path struct {
	name   string
	six    bool
	layers []layer // innermost first
	bare   bool    // no rule of the policy demands protection, only the SAs provide it
}

// layer is one SA of a path in each direction.
type layer struct {
	tunnel bool
	suite  string
	esn    bool
	window int
	high   bool // its numbers begin shortly before the low half wraps
}

// paths are what the campaign talks over: both IP versions, the modes, one and two
// portions, with and without extended sequence numbers.
var paths = []path{
	{name: "bare", layers: []layer{{suite: "aes128gcm16", window: 64}}, bare: true},
	{name: "cbc", layers: []layer{{suite: "aes128-sha256", esn: true, window: 256}}},
	{name: "six", six: true, layers: []layer{{suite: "aes256gcm16", esn: true, window: 64, high: true}}},
	{name: "tunnel6", six: true, layers: []layer{{tunnel: true, suite: "chacha20poly1305", window: 1024}}},
	{name: "tunnel4", layers: []layer{{tunnel: true, suite: "aes128-sha256", window: 64}}},
	{name: "nested", layers: []layer{{suite: "aes128gcm16", window: 64}, {tunnel: true, suite: "aes128gcm16", window: 64}}},
}

// keyLengths are those of the suites' keys in bytes, salt included: encryption,
// integrity.
var keyLengths = map[string][2]int{
	"aes128gcm16": {20, 0}, "aes256gcm16": {36, 0}, "chacha20poly1305": {36, 0}, "aes128-sha256": {16, 32},
}

// addr is a host's address on a path.
func (p *path) addr(number, host int) netip.Addr {
	if p.six {
		return netip.MustParseAddr(fmt.Sprintf("fd77:%d::%d", number, host+1))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.77.%d.%d", number, host+1))
}

// endpoint is a host's end of the tunnels.
func endpoint(six bool, host int) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", host+1))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", host+1))
}

// addresses are all the addresses of a host's stack.
func addresses(host int) (all []netip.Prefix) {
	for number := range paths {
		a := paths[number].addr(number, host)
		all = append(all, netip.PrefixFrom(a, map[bool]int{false: 24, true: 64}[a.Is6()]))
	}
	for _, six := range []bool{false, true} {
		a := endpoint(six, host)
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// protected reports whether an address is one that the hosts talk over.
func protected(a netip.Addr) bool {
	for _, p := range []string{"10.77.0.0/16", "fd77::/16", "192.0.2.0/24", "2001:db8::/32"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

// association is one SA of one generation, as the model knows it.
type association struct {
	name      string
	spi       uint32
	from      int // the host that seals
	line      line
	layer     layer
	selector  string // of a tunnel
	src, dst  netip.Addr
	key       []byte
	integrity []byte

	mu           sync.Mutex
	numbers, ivs numbers             // seen on the wire so far
	random       map[string]struct{} // IVs of CBC
}

// line is a path in one direction.
type line struct{ path, from int }

func (l line) String() string {
	return fmt.Sprintf("%s from %s", paths[l.path].name, hostNames[l.from])
}

// associations hands out SAs, and no SPI twice in a campaign.
type associations struct {
	mu     sync.Mutex
	random *rand.Rand
	next   uint32
	bySPI  map[uint32]*association
	digits map[string]struct{} // every run of eight hexadecimal digits in any key
	live   map[line][]*association
}

func newAssociations(random *rand.Rand) *associations {
	a := &associations{random: random, next: 0x1000, bySPI: map[uint32]*association{}, digits: map[string]struct{}{}, live: map[line][]*association{}}
	for _, l := range lines() {
		a.live[l] = a.generation(l)
	}
	return a
}

// lines are all lines there are.
func lines() (all []line) {
	for number := range paths {
		all = append(all, line{number, 0}, line{number, 1})
	}
	return all
}

// generation makes the SAs of one line with fresh keys.
func (a *associations) generation(l line) (all []*association) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &paths[l.path]
	for _, layer := range p.layers {
		a.next++
		s := &association{name: fmt.Sprintf("%s-%s-%x", p.name, hostNames[l.from], a.next), spi: a.next, from: l.from, line: l, layer: layer,
			src: p.addr(l.path, l.from), dst: p.addr(l.path, 1-l.from), numbers: numbers{}, ivs: numbers{}, random: map[string]struct{}{}}
		if layer.tunnel {
			s.selector = fmt.Sprintf("{src: %s, dst: %s}", s.src, s.dst)
			s.src, s.dst = endpoint(p.six, l.from), endpoint(p.six, 1-l.from)
		}
		s.key, s.integrity = a.bytes(keyLengths[layer.suite][0]), a.bytes(keyLengths[layer.suite][1])
		a.bySPI[s.spi] = s
		all = append(all, s)
	}
	return all
}

// bytes makes a key, and remembers what a log must not show of it.
func (a *associations) bytes(n int) []byte {
	key := make([]byte, n)
	for i := range key {
		key[i] = byte(a.random.Uint32())
	}
	for text := fmt.Sprintf("%x", key); len(text) >= 8; text = text[1:] {
		a.digits[text[:8]] = struct{}{}
	}
	return key
}

// stranger is an SA for traffic that does not exist.
func (a *associations) stranger(i int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	return fmt.Sprintf("  - {name: x%d, spi: 0x%x, src: 10.99.0.1, dst: 10.99.0.2, protocol: esp, mode: transport, suite: aes128gcm16, encryption_key: 0x%x, direction: in, offload: preferred}\n",
		i, a.next, a.bytes(20))
}

func (a *associations) find(spi uint32) *association {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bySPI[spi]
}

// shows reports whether a text contains part of a key.
func (a *associations) shows(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	run := 0
	for i := range len(text) {
		if strings.IndexByte("0123456789abcdefABCDEF", text[i]) < 0 {
			run = 0
			continue
		}
		if run++; run >= 8 {
			if _, ok := a.digits[strings.ToLower(text[i-7:i+1])]; ok {
				return true
			}
		}
	}
	return false
}

// set is what a host's configuration holds.
type set struct {
	host      int
	wire      string
	sas       []*association
	strangers []string
	how       int // how the direction of the SAs is stated
}

// The ways to state it.
const (
	byAddresses = iota // not at all: it follows from the addresses of the stack's interface
	byLocal            // local
	byDirection        // direction of each SA
	ways
)

// text is the configuration's file. The policy stands first, so that a file cut
// short keeps it for longest.
func (s *set) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "profile: full\nwire: {name: %s, mtu: 1500}\n", s.wire)
	if s.how == byLocal {
		var local []string
		for _, a := range addresses(s.host) {
			local = append(local, `"`+a.Addr().String()+`"`)
		}
		fmt.Fprintf(&b, "local: [%s]\n", strings.Join(local, ", "))
	}
	b.WriteString("policy:\n")
	for number := range paths {
		if p := &paths[number]; !p.bare {
			fmt.Fprintf(&b, "  - {match: {dst: %s}, action: protect}\n  - {match: {dst: %s}, action: protect}\n", p.addr(number, 0), p.addr(number, 1))
		}
	}
	b.WriteString("sas:\n")
	for _, a := range s.sas {
		b.WriteString(a.text(s))
	}
	for _, x := range s.strangers {
		b.WriteString(x)
	}
	return b.String()
}

func (a *association) text(s *set) string {
	mode := "transport"
	if a.layer.tunnel {
		mode = "tunnel"
	}
	text := fmt.Sprintf("  - {name: %s, spi: 0x%x, src: %s, dst: %s, protocol: esp, mode: %s, suite: %s, window: %d, esn: %v, offload: preferred, encryption_key: 0x%x",
		a.name, a.spi, a.src, a.dst, mode, a.layer.suite, a.layer.window, a.layer.esn, a.key)
	if a.layer.high {
		text += ", seq_low: 0xfffffe00"
	}
	if len(a.integrity) > 0 {
		text += fmt.Sprintf(", integrity_key: 0x%x", a.integrity)
	}
	if a.selector != "" {
		text += ", selector: " + a.selector
	}
	if s.how == byDirection {
		text += ", direction: " + map[bool]string{true: "out", false: "in"}[a.from == s.host]
	}
	return text + "}\n"
}
