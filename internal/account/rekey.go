package account

import (
	"cmp"
	"net/netip"
	"slices"

	"tapsec/sa"
)

// route is one direction between two hosts.
type route struct {
	protocol sa.Protocol
	src, dst netip.Addr
	encap    bool
}

// heads is how many senders of a route are remembered, the latest.
const heads = 4

// before is a sender that was there when another one began, with its frames until then.
type before struct {
	*sender
	frames uint64
}

// begin notes which senders are there when another sends its first frame.
func (a *Account) begin(s *sender, src, dst netip.Addr) {
	a.born++
	s.number = a.born
	if s.sa != nil && s.sa.Src.IsValid() {
		src, dst = s.sa.Src, s.sa.Dst
	}
	s.header.Src, s.header.Dst = src, dst
	r := route{s.header.Protocol, src, dst, s.header.Encap}
	last := a.routes[r]
	if last == nil {
		last = &[heads]*sender{}
		a.routes[r] = last
	}
	for i, o := range last {
		if o != nil {
			s.before[i] = before{o, o.frames}
		}
	}
	copy(last[1:], last[:])
	last[0] = s
}

// rekeys tells which sender took over from which. Both have the same protocol, addresses and
// direction, and as far as SAs tell, mode, selector and reqid: of several tunnels between two hosts a
// kernel tells no selectors. The old one had sent two frames or
// more, sent at most a quarter of that later, and ended earlier. Of several, it is the one
// that ended last.
func rekeys(all []*sender) map[*sender]*sender {
	next := map[*sender]*sender{}
	for _, s := range all {
		var old *sender
		for _, b := range s.before {
			if b.sender == nil || b.swept || next[b.sender] != nil || !s.mayFollow(&b) {
				continue
			}
			if old == nil || b.last > old.last {
				old = b.sender
			}
		}
		if old != nil {
			next[old] = s
		}
	}
	return next
}

func (s *sender) mayFollow(b *before) bool {
	o := b.sender
	if s.header.SPI == o.header.SPI || b.frames < 2 || o.last >= s.last || o.frames-b.frames > b.frames/4 {
		return false
	}
	return s.sa == nil || o.sa == nil || s.sa.Mode == o.sa.Mode && same(s.sa.Selector, o.sa.Selector) &&
		(s.sa.ReqID == 0 || o.sa.ReqID == 0 || s.sa.ReqID == o.sa.ReqID)
}

func same(a, b *sa.Selector) bool { return a == b || a != nil && b != nil && *a == *b }

// all are the senders that sent something, by first frame.
func (a *Account) all() (all []*sender) {
	for _, s := range a.known {
		if s.frames > 0 {
			all = append(all, s)
		}
	}
	for _, s := range a.unknown {
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y *sender) int { return cmp.Compare(x.number, y.number) })
	return all
}
