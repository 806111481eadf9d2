package transport

import (
	"encoding/binary"

	"tapsec/internal/fragment"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// rest looks at what is left of the frame.
//
//  1. No IP packet: it passes, the policy is about packets.
//  2. A fragment to us waits for the others, unless it will not be delivered.
//     They come as one packet.
//  3. IPsec to us goes through software, and again is to be judged.
//  4. Anything else has arrived, and is the policy's.
func (c *Consumer) rest() (again bool, _ Reason) {
	if c.l3 == 0 {
		return false, None
	}
	p, reason := c.packet()
	if reason == None && p.Fragment && c.mine(p.Dst) {
		p, reason = c.reassemble(p)
	}
	if reason != None {
		return false, reason
	}
	switch c.locate(p) {
	case sealed:
		reason = c.open()
		return reason == None, reason
	case orphan:
		return false, NoSA
	case keepAlive:
		return false, KeepAlive
	}
	c.frame = c.frame[:p.End]
	return false, c.police(p)
}

// reassemble adds a fragment to its datagram, and gives the packet if that is
// whole. Fragments that came through different SAs never make one.
func (c *Consumer) reassemble(p wire.Packet) (wire.Packet, Reason) {
	const prime = 1<<40 + 0x1b3 // FNV's: handles are small
	if c.refused != None {
		return p, c.refused
	}
	carried := uint64(0)
	for _, a := range c.via {
		carried = carried*prime + uint64(a.Handle)
	}
	whole, result := c.fragments.Add(c.frame, p, carried, c.now)
	if result != fragment.Whole {
		return p, incomplete[result]
	}
	c.frame = append(make([]byte, 0, cap(whole)), whole...) // the stack's until it has read it
	c.fragments.Release()
	c.softly = true
	_, c.l3, _ = wire.Ethernet(c.frame) // the tags are the first fragment's
	return c.packet()
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

// kind is what a packet is to IPsec.
type kind uint8

const (
	plain     kind = iota
	sealed         // IPsec, and there is an SA
	orphan         // IPsec to us without one
	keepAlive      // of NAT traversal
)

// locate tells whether a packet is IPsec that concerns us: an SA of ours matches
// it, or it is addressed to us. IPsec to others is traffic like any other.
func (c *Consumer) locate(p wire.Packet) kind {
	switch at := spiAt(p); {
	case p.Proto == wire.ProtoUDP:
		return c.locateUDP(p)
	case p.Proto != wire.ProtoESP && p.Proto != wire.ProtoAH:
		return plain
	case at == 0 || at+4 > p.Reach:
		return c.foreign(p)
	default:
		return c.match(p, sa.Protocol(p.Proto), binary.BigEndian.Uint32(c.frame[at:]), false)
	}
}

// locateUDP tells ESP from what else may come to its UDP port (RFC 3948 section
// 2). Without an encapsulated SA the port is like any other.
func (c *Consumer) locateUDP(p wire.Packet) kind {
	if !c.encap || p.Later {
		return plain
	}
	b := c.frame[p.Header:max(p.Header, p.Reach)]
	_, port, length, ok := wire.UDP(b)
	if !ok || port != sa.EncapPort || length < wire.UDPLen {
		return plain
	}
	b = b[wire.UDPLen:min(length, len(b))]
	switch {
	case len(b) == 1 && b[0] == 0xff && c.mine(p.Dst):
		return keepAlive
	case len(b) < 8 || binary.BigEndian.Uint32(b) == 0: // too short for ESP, or IKE
		return plain
	}
	return c.match(p, sa.ESP, binary.BigEndian.Uint32(b), true)
}

func (c *Consumer) match(p wire.Packet, protocol sa.Protocol, spi uint32, encap bool) kind {
	m := c.sas.Lookup(spi, p.Dst, p.Src, encap)
	if m.ESP == nil && m.AH == nil {
		return c.foreign(p)
	}
	if protocol == sa.ESP && m.ESP == nil || protocol == sa.AH && m.AH == nil {
		return orphan
	}
	return sealed
}

// foreign is IPsec for which there is no SA.
func (c *Consumer) foreign(p wire.Packet) kind {
	if c.mine(p.Dst) {
		return orphan
	}
	return plain
}

// open has software check and decrypt the frame.
func (c *Consumer) open() Reason {
	c.softly = true
	if d := c.doubt; d.of != nil {
		c.doubt = doubt{}
		return c.presume(d)
	}
	annotated := c.fallback.Process(c.frame)
	body, t, err := status.Split(annotated)
	switch {
	case err != nil:
		return BadAnnotation
	case t.N == 0 || t.Records[0].State == status.NotProcessed:
		return Unsupported
	}
	return c.take(annotated, body, &t)
}
