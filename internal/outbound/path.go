package outbound

import (
	"maps"
	"net/netip"
	"time"

	"tapsec/sa"
	"tapsec/wire"
)

const (
	// pathHolds is how long a router's report holds. A path may grow again, which
	// nobody reports (RFC 1191 section 6.3, RFC 8201 section 4).
	pathHolds = 10 * time.Minute

	// leastPath4 is the least path MTU of IPv4 that is believed. Every Internet path
	// takes more; a forger would ask for less to make us send crumbs.
	leastPath4 = 552

	// recentNumbers is how many of an SA's latest numbers a report may be about: a
	// tenth of a second's at a million packets a second.
	recentNumbers = 1 << 17
)

// path is what routers have reported about the path of an SA's packets.
type path struct {
	mtu    int           // bytes; 0: no report that still holds
	until  time.Duration // on the ledger's clock
	logged bool
}

// Heed reads a router's report, if the frame is one, that a sealed packet of ours was too
// long for the next link ("fragmentation needed", RFC 1191; "packet too big", RFC 4443
// section 3.2), and keeps what it says for the SA (RFC 4301 section 8.2.1). Nobody signs
// such a report. So the packet that it quotes must be of an SA of ours and have a number
// sent lately, and the report only shortens a path, never below what every path takes.
func (s *Sender) Heed(frame []byte) {
	l3, version := icmpAt(frame)
	if version == 0 {
		return
	}
	r, ok := parseReport(frame, l3, version)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.sas.reported(&r)
	if a == nil || r.mtu < r.least || r.mtu >= min(s.config.MTU, a.layer.path) {
		s.counts[Unbelieved]++
		return
	}
	s.counts[Narrowed]++
	s.narrow(a, &r)
}

// narrow keeps a report that has been checked, and audits the first of each SA.
func (s *Sender) narrow(a *association, r *report) {
	p := s.paths[a.ID()]
	if p == nil {
		p = &path{}
		s.paths[a.ID()] = p
	}
	p.mtu, p.until = r.mtu, s.config.Ledger.Clock()+pathHolds
	a.layer.setPath(p.mtu)
	s.routes.forget()
	if p.logged || s.config.Audit == nil {
		return
	}
	p.logged = true
	s.config.Audit(Event{Time: time.Now(), Reason: Narrowed, SA: a.Name, Protocol: a.Protocol, SPI: a.SPI,
		Number: uint64(r.number), Src: a.Src, Dst: a.Dst, Router: r.router, MTU: r.mtu})
}

// restorePaths gives the SAs of a new configuration the paths that are known.
func (s *Sender) restorePaths() {
	there := map[sa.ID]bool{}
	if len(s.paths) == 0 {
		return
	}
	for _, a := range s.sas.names {
		there[a.ID()] = true
		s.restorePath(a)
	}
	maps.DeleteFunc(s.paths, func(id sa.ID, p *path) bool { return p.mtu == 0 && !there[id] })
}

func (s *Sender) restorePath(a *association) {
	if p := s.paths[a.ID()]; p != nil {
		a.layer.setPath(p.mtu)
	}
}

// agePaths forgets reports that hold no more.
func (s *Sender) agePaths() {
	now, changed := s.config.Ledger.Clock(), false
	for _, p := range s.paths {
		if p.mtu != 0 && now >= p.until {
			p.mtu, changed = 0, true
		}
	}
	if changed {
		s.restorePaths()
		s.routes.forget()
	}
}

// reported finds the SA of the packet that a report quotes; nil if there is none, or it did
// not send that number lately.
func (a *associations) reported(r *report) *association {
	for _, dst := range []netip.Addr{r.dst, {}} {
		for s := a.ids[endHash(r.spi, dst)]; s != nil; s = s.next {
			if s.SPI != r.spi || s.Protocol != r.protocol || s.Encap != r.encap || s.Dst.IsValid() && s.Dst != r.dst || s.Src.IsValid() && s.Src != r.src {
				continue
			}
			if sent := s.counter.Peek() - 1; uint64(uint32(sent)-r.number) < min(sent, recentNumbers) {
				return s
			}
		}
	}
	return nil
}

// report is a router's report that a sealed packet is too long for the next link.
type report struct {
	router     netip.Addr
	mtu, least int // bytes; least is what every path of that IP version takes

	// The packet quoted.
	src, dst netip.Addr
	protocol sa.Protocol
	spi      uint32
	number   uint32 // the low half, all that is in the packet
	encap    bool
}

// icmpAt finds the IP packet of a frame that carries ICMP; version is 0 if it does not.
// Routers put no extension headers before ICMPv6.
func icmpAt(frame []byte) (l3 int, version uint8) {
	etherType, l3, ok := wire.Ethernet(frame)
	switch {
	case !ok:
	case etherType == wire.EtherIPv4 && len(frame) > l3+wire.IPv4Len && frame[l3+9] == wire.ProtoICMP:
		return l3, 4
	case etherType == wire.EtherIPv6 && len(frame) > l3+wire.IPv6Len && frame[l3+6] == wire.ProtoICMPv6:
		return l3, 6
	}
	return 0, 0
}

// parseReport reads a report. ok is false for anything else, for a damaged one, and for
// one that does not quote an IPsec packet up to its sequence number.
func parseReport(frame []byte, l3 int, version uint8) (r report, ok bool) {
	kind := uint16(3<<8 | 4) // fragmentation needed, type and code
	if version == 6 {
		kind = 2 << 8 // packet too big
	}
	p, err := wire.ParseIP(frame, l3, len(frame), version)
	if err != nil || p.Short || p.Fragment || p.End-p.Header < icmpLen || !wire.HeaderSum(frame, &p) {
		return r, false
	}
	icmp := frame[p.Header:p.End]
	if be.Uint16(icmp) != kind || icmpSum(frame[p.Start:p.Header], icmp) != 0 {
		return r, false
	}
	r.router, r.mtu, r.least = p.Src, int(be.Uint16(icmp[6:])), leastPath4
	if version == 6 {
		r.mtu, r.least = int(min(be.Uint32(icmp[4:]), maxMTU)), leastIPv6
	}
	q, err := wire.ParseIP(frame, p.Header+icmpLen, p.End, version)
	if err != nil || q.Later || q.Src != p.Dst {
		return r, false
	}
	r.src, r.dst = q.Src, q.Dst
	return r, r.quote(q.Proto, frame[q.Header:max(q.Header, q.Reach)])
}

// quote reads the IPsec header at the start of b. The eight bytes that a router must quote
// at least (RFC 792) suffice for ESP, but not for AH or ESP in UDP.
func (r *report) quote(proto uint8, b []byte) bool {
	r.protocol = sa.Protocol(proto)
	at := 0
	switch proto {
	case wire.ProtoESP:
	case wire.ProtoAH:
		at = 4
	case wire.ProtoUDP:
		if src, dst, _, ok := wire.UDP(b); !ok || !sa.Encapsulated(src, dst) {
			return false
		}
		r.protocol, r.encap, at = sa.ESP, true, wire.UDPLen
	default:
		return false
	}
	if len(b) < at+8 {
		return false
	}
	r.spi, r.number = be.Uint32(b[at:]), be.Uint32(b[at+4:])
	return true
}
