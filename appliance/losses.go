//go:build linux

package appliance

import (
	"fmt"
	"log/slog"

	"tapsec/internal/nic"
	"tapsec/tap"
)

// losses advises, once for each direction and kind, when the first frame is lost that
// another setting would have saved.
type losses struct {
	log        *slog.Logger
	wire, host string // interfaces
	xdp        bool   // attached interfaces use AF_XDP
	said       map[string]bool
}

// watch looks at what was moved so far, and at what the kernel dropped before that.
func (l *losses) watch(s nic.Summary, drops []KernelDrops) {
	l.way(l.wire, l.host, &s.ToHost)
	l.way(l.host, l.wire, &s.ToWire)
	for _, d := range drops {
		if d.Interface == l.wire && s.ToHost.Uncut > 0 || d.Interface == l.host && s.ToWire.Uncut > 0 {
			l.first(d.Tx, d.Interface, fmt.Sprintf("along with merged packets that cannot be cut, the kernel dropped other frames on %s: what helps against those helps here", d.Interface))
			continue
		}
		l.first(d.Tx, d.Interface, fmt.Sprintf("frames came to %s faster than they were taken, and the kernel dropped those that its queue had no room for: give tapsec more processor time, or more --queues; on a TAP a longer queue helps against bursts (ip link set %s txqueuelen 10000)", d.Interface, d.Interface))
	}
}

func (l *losses) way(from, to string, t *tap.Tally) {
	oversize := fmt.Sprintf("frames of more than %d bytes, the longest IP packet's, are discarded: see what sends them to %s", room, from)
	if l.xdp {
		oversize = fmt.Sprintf("frames for which AF_XDP has no room, most likely merged ones, are discarded: have %s merge none (ethtool -K %s gro off lro off), and what sends to it cut its own (tso off gso off), or choose --engine ring", from, from)
	}
	l.first(t.Oversize, from, oversize)
	l.first(t.Uncut, from, fmt.Sprintf("merged packets that cannot be cut (SCTP, UFO, LRO) are discarded: have %s merge none (ethtool -K %s lro off gro off), and what sends to it cut its own (tso off gso off)", from, from))
	l.first(t.TooLong, to, fmt.Sprintf("frames are longer than the MTU of %s allows, and given up: raise it (ip link set %s mtu ...)", to, to))
	l.first(t.Refused, to, fmt.Sprintf("%s refuses frames for good, and they are given up: see what drops on its way out (nft list ruleset, tc -s qdisc show dev %s)", to, to))
}

func (l *losses) first(frames uint64, name, msg string) {
	if frames > 0 {
		l.once(msg, "interface", name, "frames", frames)
	}
}

// left advises when an interface is no longer where it was opened.
func (l *losses) left(name string) {
	l.once(fmt.Sprintf("%s has left its network namespace: a TAP's frames flow on, but whether it is up, its MTU, addresses and counters are not seen from here; start tapsec again to see them", name), "interface", name)
}

func (l *losses) once(msg string, fields ...any) {
	if l.said[msg] {
		return
	}
	if l.said == nil {
		l.said = map[string]bool{}
	}
	l.said[msg] = true
	l.log.Warn(msg, fields...)
}
