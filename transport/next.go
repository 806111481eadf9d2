package transport

import (
	"encoding/binary"

	"tapsec/internal/fragment"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// next looks at what is left of the frame.
//
//  1. Not an IP packet: it passes, since the policy is about packets.
//  2. A fragment to us waits for the rest, unless it will not be delivered. Together they
//     are one packet.
//  3. IPsec to us goes through software, and then is judged again.
//  4. Anything else has arrived; the policy decides.
func (r *Receiver) next(f *frame) (again bool, _ Reason) {
	if f.l3 == 0 {
		return false, None
	}
	p, reason := f.packet()
	if reason == None && p.Fragment && r.isLocal(p.Dst) {
		p, reason = r.reassemble(f)
	}
	if reason != None {
		return false, reason
	}
	switch r.classify(f, p) {
	case protected:
		reason = r.openInSoftware(f)
		return reason == None, reason
	case lacksSA:
		return false, NoSA
	case keepAlive:
		return false, KeepAlive
	}
	f.bytes = f.bytes[:p.End]
	reason = r.checkPolicy(f, p)
	if p.Proto == wire.ProtoICMP || p.Proto == wire.ProtoICMPv6 {
		r.showICMP(f, reason)
	}
	return false, reason
}

// showICMP shows a frame to the reader of routers' reports. Routers do not protect those,
// so most policies drop them. A report out of a tunnel must be delivered to count:
// otherwise the tunnel's SA may not carry it.
func (r *Receiver) showICMP(f *frame, reason Reason) {
	if r.icmp != nil && f.refused == None && (reason == None || len(f.carriedBy) == 0) {
		r.icmp(f.bytes)
	}
}

// reassemble adds a fragment to its datagram, and returns the packet once it is whole.
// Fragments that came through different SAs never meet.
func (r *Receiver) reassemble(f *frame) (*wire.Packet, Reason) {
	const prime = 1<<40 + 0x1b3 // FNV's: handles are small
	if f.refused != None {
		return nil, f.refused
	}
	carried := uint64(0)
	for _, a := range f.carriedBy {
		carried = carried*prime + uint64(a.Handle)
	}
	whole, result := r.fragments.Add(f.bytes, f.ip, carried, r.now)
	if result != fragment.Whole {
		return nil, incomplete[result]
	}
	f.bytes = append(make([]byte, 0, cap(whole)), whole...) // the stack reads it later
	r.fragments.Release()
	f.inSoftware, f.parsed = true, false
	_, f.l3, _ = wire.Ethernet(f.bytes) // the tags are the first fragment's
	return f.packet()
}

// incomplete says why a fragment made no packet.
var incomplete = [fragment.NumResults]Reason{
	fragment.Held:        FragmentHeld,
	fragment.Duplicate:   FragmentDuplicate,
	fragment.Overlap:     FragmentOverlap,
	fragment.BadEnd:      FragmentBad,
	fragment.BadLength:   FragmentBad,
	fragment.BadHeader:   FragmentBad,
	fragment.TooLong:     FragmentBad,
	fragment.ECNMismatch: ECN,
}

// kind is what a packet means to IPsec.
type kind uint8

const (
	plain     kind = iota
	protected      // IPsec, and there is an SA
	lacksSA        // IPsec to us without one
	keepAlive      // NAT traversal's
)

// classify says whether a packet is IPsec that concerns us, because an SA of ours matches
// or it is addressed to us. IPsec to others is traffic like any other.
func (r *Receiver) classify(f *frame, p *wire.Packet) kind {
	switch at := spiAt(p); {
	case p.Proto == wire.ProtoUDP:
		return r.classifyUDP(f, p)
	case p.Proto != wire.ProtoESP && p.Proto != wire.ProtoAH:
		return plain
	case at == 0 || at+4 > p.Reach:
		return r.kindWithoutSA(p)
	default:
		return r.match(p, sa.Protocol(p.Proto), binary.BigEndian.Uint32(f.bytes[at:]), false)
	}
}

// classifyUDP tells ESP from the other traffic of its UDP port (RFC 3948 section 2).
// Without an encapsulated SA the port is like any other.
func (r *Receiver) classifyUDP(f *frame, p *wire.Packet) kind {
	if r.encap == 0 || p.Later {
		return plain
	}
	b := f.bytes[p.Header:max(p.Header, p.Reach)]
	src, dst, length, ok := wire.UDP(b)
	if !ok || !sa.Encapsulated(src, dst) || length < wire.UDPLen {
		return plain
	}
	b = b[wire.UDPLen:min(length, len(b))]
	switch {
	case len(b) == 1 && b[0] == 0xff && r.isLocal(p.Dst):
		return keepAlive
	case len(b) < 8 || binary.BigEndian.Uint32(b) == 0: // too short for ESP, or IKE
		return plain
	}
	return r.match(p, sa.ESP, binary.BigEndian.Uint32(b), true)
}

// match says whether there is an SA for the packet, of the right protocol.
func (r *Receiver) match(p *wire.Packet, protocol sa.Protocol, spi uint32, encap bool) kind {
	m := r.sas.Lookup(spi, p.Dst, p.Src, encap)
	if m.ESP == nil && m.AH == nil {
		return r.kindWithoutSA(p)
	}
	if protocol == sa.ESP && m.ESP == nil || protocol == sa.AH && m.AH == nil {
		return lacksSA
	}
	return protected
}

// kindWithoutSA is what IPsec without an SA counts as.
func (r *Receiver) kindWithoutSA(p *wire.Packet) kind {
	if r.isLocal(p.Dst) {
		return lacksSA
	}
	return plain
}

// openInSoftware lets software check and decrypt the frame.
func (r *Receiver) openInSoftware(f *frame) Reason {
	f.inSoftware = true
	if f.guess.of != nil {
		return r.tryHighHalves(f)
	}
	opened, t := r.fallback.Check(f.bytes)
	if t.N == 0 || t.Records[0].State == status.NotProcessed {
		return Unsupported
	}
	return f.begin(opened, t)
}
