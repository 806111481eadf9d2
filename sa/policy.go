package sa

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tapsec/wire"
)

// Ports is an inclusive range of ports. The zero value is every port.
type Ports struct{ First, Last uint16 }

// UnmarshalText reads "80" or "1024-2047". A lone 0 is refused, since it would
// mean every port.
func (p *Ports) UnmarshalText(b []byte) error {
	first, last, ranged := strings.Cut(string(b), "-")
	if !ranged {
		last = first
	}
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || lo > hi || hi == 0 {
		return fmt.Errorf("expected a port or a range FIRST-LAST, found %s", Quote(string(b)))
	}
	p.First, p.Last = uint16(lo), uint16(hi)
	return nil
}

// Selector says which packets may travel on an SA (RFC 4301 section 4.4.1.1). A zero field
// matches anything. The host applies it; the NIC ignores it.
type Selector struct {
	Src      netip.Prefix `yaml:"src"`
	Dst      netip.Prefix `yaml:"dst"`
	Protocol uint8        `yaml:"protocol"`
	SrcPorts Ports        `yaml:"src_ports"`
	DstPorts Ports        `yaml:"dst_ports"`
}

// Matches reports whether the selector certainly covers a flow. No selector covers every
// flow.
func (s *Selector) Matches(f *wire.Flow) bool { return s == nil || s.matches(f, false) }

// MayMatch reports whether the selector covers a flow as far as can be seen.
func (s *Selector) MayMatch(f *wire.Flow) bool { return s == nil || s.matches(f, true) }

// matches compares what the flow shows. For what it hides, the answer is unshown.
func (s *Selector) matches(f *wire.Flow, unshown bool) bool {
	protocol := s.Protocol == 0 || s.Protocol == f.Protocol
	anyPort := s.SrcPorts == Ports{} && s.DstPorts == Ports{}
	ports := anyPort || f.HasPorts() && s.SrcPorts.contains(f.SrcPort) && s.DstPorts.contains(f.DstPort)
	if f.Shown < wire.ShownProtocol {
		protocol = s.Protocol == 0 || unshown
	}
	if f.Shown < wire.ShownAll {
		ports = anyPort || unshown
	}
	return contains(s.Src, f.Src) && contains(s.Dst, f.Dst) && protocol && ports
}

func contains(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }

func (p Ports) contains(port uint16) bool {
	return p == Ports{} || p.First <= port && port <= p.Last
}

// Limit ends an SA's life, or announces its end. A zero field sets no limit.
type Limit struct {
	Time    time.Duration `yaml:"time"`
	Bytes   uint64        `yaml:"bytes"`
	Packets uint64        `yaml:"packets"`
}

// Lifetimes are the soft and hard limits of an SA (RFC 4301 section 4.4.2.1).
type Lifetimes struct {
	Soft Limit `yaml:"soft"`
	Hard Limit `yaml:"hard"`
}

// Action is what a policy does with the packets it matches.
type Action uint8

// The actions (RFC 4301 section 4.4.1).
const (
	Protect Action = iota + 1
	Bypass
	Discard
)

// String names the action.
func (a Action) String() string { return actions.of(a, "action") }

// UnmarshalText reads "protect", "bypass" or "discard".
func (a *Action) UnmarshalText(b []byte) error { return actions.read(a, b) }

// Policy is one rule of a host, for what it receives and for what it sends.
type Policy struct {
	Match  Selector `yaml:"match"`
	Action Action   `yaml:"action"`
	SA     string   `yaml:"sa"` // with Protect: the name of the SA that must have carried the packet; empty: any SA
}

// Concerns reports whether the rule applies to a flow. What the flow does not show may be
// anything: a rule that protects or discards applies if it may, a bypass only if it must.
func (p *Policy) Concerns(f *wire.Flow) bool { return p.Match.matches(f, p.Action != Bypass) }

// FirstFor is the first rule that applies to a flow, and so decides; nil is none.
func FirstFor(policy []Policy, f *wire.Flow) *Policy {
	for i := range policy {
		if policy[i].Concerns(f) {
			return &policy[i]
		}
	}
	return nil
}
