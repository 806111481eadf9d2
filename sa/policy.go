package sa

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
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
		return fmt.Errorf("expected a port or a range FIRST-LAST, found %q", b)
	}
	p.First, p.Last = uint16(lo), uint16(hi)
	return nil
}

// Selector says which packets may travel on an SA (RFC 4301 section 4.4.1.1).
// A zero field matches anything. The NIC ignores it; it is the transport's.
type Selector struct {
	Src, Dst           netip.Prefix
	Protocol           uint8
	SrcPorts, DstPorts Ports
}

// Limit ends or announces an SA's life; a zero field sets no limit.
type Limit struct {
	Time    time.Duration
	Bytes   uint64
	Packets uint64
}

// Lifetimes are the soft and hard limits of an SA (RFC 4301 section 4.4.2.1).
type Lifetimes struct{ Soft, Hard Limit }

// Action is what a policy does with the packets it matches.
type Action uint8

// The actions (RFC 4301 section 4.4.1).
const (
	Protect Action = iota + 1
	Bypass
	Discard
)

// String names the action.
func (a Action) String() string { return [...]string{"none", "protect", "bypass", "discard"}[a&3] }

// UnmarshalText reads "protect", "bypass" or "discard".
func (a *Action) UnmarshalText(b []byte) error {
	return pick(a, string(b), map[string]Action{"protect": Protect, "bypass": Bypass, "discard": Discard})
}

// Policy is one inbound rule of the transport.
type Policy struct {
	Match  Selector
	Action Action
	SA     string // with Protect: the name of the SA that must have carried the packet; empty: any SA
}
