package pipeline

import (
	"encoding/binary"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// portion is what one SA, or the AH and ESP SA of one bundle, protects: the
// payload of one IP packet. The zero portion is none at all.
type portion struct {
	kind   status.Portion // from the SA's mode; with auto unknown until an ICV has verified
	packet wire.Packet    // the packet that carries it
	encap  bool           // ESP in UDP
	end    int            // end of the IPsec packet, by IP or UDP length

	headers [2]header     // AH before ESP
	n       int           // headers in use: those for which an SA matched
	skip    status.Reason // why the portion is left alone; 0 if it is to be checked
	fault   status.Reason // what is wrong before any crypto (row 22); 0 if nothing

	// Once verified:
	verified bool
	payload  int // offset of what the portion protected
	length   int // of the payload in bytes
	next     uint8
}

// header is one AH or ESP header with the SA that matched it.
type header struct {
	sa       *entry
	at       int // offset
	protocol sa.Protocol
}

// wanted reports whether the portion is to be checked.
func (po *portion) wanted() bool { return po.skip == 0 && po.n > 0 }

func (po *portion) add(e *entry, protocol sa.Protocol, at int) {
	po.headers[po.n] = header{e, at, protocol}
	po.n++
	po.kind = kindOf[e.Mode]
}

// kindOf is the portion that an SA of each mode protects.
var kindOf = [...]status.Portion{
	sa.Transport: status.TransportPortion, sa.Tunnel: status.TunnelPortion, sa.Auto: status.NoPortion,
}

// find looks for IPsec in po.packet, in the order of the NDIS documents.
//
//  1. Is there an AH or ESP header that can be reached?
//  2. Is offload active?
//  3. Which SAs have its SPI and addresses?
//  4. Is the portion within the capabilities in force?
func (p *Pipeline) find(po *portion) {
	var first header
	first, po.skip = p.locate(po)
	if po.skip != 0 {
		return
	}
	if p.sad.inactive.Load() {
		po.skip = status.OffloadInactive
		return
	}
	if po.skip = p.match(po, first); po.skip == 0 {
		po.skip = p.incapable(po)
	}
}

// Bytes of a header up to the end of its SPI.
const (
	espSPIEnd = 4
	ahSPIEnd  = 8
)

// locate finds the IPsec header of po.packet and where the portion ends.
func (p *Pipeline) locate(po *portion) (header, status.Reason) {
	k := &po.packet
	h := header{at: k.Header, protocol: sa.Protocol(k.Proto)}
	po.end = k.End
	spiEnd := espSPIEnd
	switch k.Proto {
	case wire.ProtoUDP:
		return p.locateUDP(po)
	case wire.ProtoAH:
		spiEnd = ahSPIEnd
	case wire.ProtoESP:
	default:
		return h, status.NoIPsec
	}
	if k.Later {
		return h, status.Fragment
	}
	if h.at+spiEnd > k.Reach {
		return h, status.SPIOutside
	}
	return h, 0
}

// locateUDP tells ESP from other traffic of its UDP port (RFC 3948 section 2).
func (p *Pipeline) locateUDP(po *portion) (header, status.Reason) {
	const keepAlive = 0xff
	k := &po.packet
	if k.Later {
		return header{}, status.NoIPsec
	}
	src, dst, length, ok := wire.UDP(p.frame[k.Header:max(k.Header, k.Reach)])
	if !ok || !sa.Encapsulated(src, dst) {
		return header{}, status.NoIPsec
	}
	if length == 0 {
		return header{}, status.SPIOutside
	}
	po.encap, po.end = true, k.Header+length
	h := header{at: k.Header + wire.UDPLen, protocol: sa.ESP}
	b := p.frame[h.at:max(h.at, min(po.end, k.Reach))]
	switch {
	case len(b) == 1 && b[0] == keepAlive:
		return h, status.KeepAlive
	case len(b) >= espSPIEnd && binary.BigEndian.Uint32(b) == 0:
		return h, status.IKE
	case len(b) < esp.HeaderLen:
		return h, status.UDPTooShort
	}
	return h, 0
}

// match finds the SAs of the portion that begins with h, and whether they are
// the ones that the frame's protocols ask for.
func (p *Pipeline) match(po *portion, h header) status.Reason {
	m := p.lookup(po, h)
	switch {
	case m.Miss != sa.Found:
		return missed(m.Miss, po.encap)
	case h.protocol == sa.AH && m.AH != nil:
		p.matchAH(po, m.AH, h.at)
	case h.protocol == sa.ESP && m.ESP != nil:
		po.add(m.ESP, sa.ESP, h.at)
		if m.ESP.Partner != nil {
			po.fault = status.BundleMismatch // its AH is missing
		}
	default:
		other := m.ESP
		if other == nil {
			other = m.AH
		}
		po.add(other, h.protocol, h.at)
		po.fault = status.ProtocolMismatch
	}
	return 0
}

// matchAH adds the AH and, if both are one portion, the ESP after it: the partner of a
// bundle, or, as Linux builds it, an offloaded SA after a transport-mode AH.
func (p *Pipeline) matchAH(po *portion, a *entry, at int) {
	po.add(a, sa.AH, at)
	head := p.frame[at:po.packet.Reach]
	isESP, bundled := head[0] == wire.ProtoESP, a.Partner != nil
	if bundled && !isESP {
		po.fault = status.BundleMismatch
		return
	}
	if !isESP || !bundled && a.Mode == sa.Tunnel || !a.Value.ah.Fits(head, po.packet.Version) {
		return
	}
	h := header{at: at + ah.Len(head), protocol: sa.ESP}
	switch readable := h.at+espSPIEnd <= po.packet.Reach; {
	case bundled && h.at > po.packet.Reach: // the AH's own length is wrong
	case bundled && readable && p.spi(h) != a.Partner.SPI:
		po.fault = status.BundleMismatch
	case bundled:
		po.add(a.Partner, sa.ESP, h.at)
	case readable:
		p.matchBehindAH(po, h)
	}
}

// matchBehindAH adds the ESP header h after an AH that is bundled with none.
func (p *Pipeline) matchBehindAH(po *portion, h header) {
	e := p.lookup(po, h).ESP
	if e == nil {
		return
	}
	po.add(e, sa.ESP, h.at)
	if e.Partner != nil {
		po.fault = status.BundleMismatch
	}
}

func (p *Pipeline) lookup(po *portion, h header) sa.Match[inbound] {
	return p.sad.table.Lookup(p.spi(h), po.packet.Dst, po.packet.Src, po.encap)
}

func (p *Pipeline) spi(h header) uint32 {
	at := h.at
	if h.protocol == sa.AH {
		at += ahSPIEnd - 4
	}
	return binary.BigEndian.Uint32(p.frame[at:])
}

func missed(m sa.Miss, encap bool) status.Reason {
	switch {
	case m == sa.MissDeleted:
		return status.SADeleted
	case encap:
		return status.UDPNoSA
	case m == sa.MissAddress:
		return status.AddressMismatch
	case m == sa.MissEncap:
		return status.EncapMismatch
	}
	return status.NoSA
}

// incapable names the capability that the portion needs and the NIC lacks; 0 if none
// (contract row 3).
func (p *Pipeline) incapable(po *portion) status.Reason {
	k, has := &po.packet, p.sad.profile.Has
	family := sa.IPv4
	if k.Version == 6 {
		family = sa.IPv6
	}
	switch {
	case p.switchedOff(po):
		return status.ProtocolOff
	case !has(family):
		return status.NoFamily
	case po == &p.outer && k.Short && k.End <= len(p.frame): // cut by maxFrame
		return status.TooLong
	case k.Fragment:
		return status.Fragment
	case k.Jumbo:
		return status.Jumbogram
	case k.Options && !has(sa.IPv4Options):
		return status.IPv4Options
	case k.Extended && !has(sa.IPv6ExtensionHeaders):
		return status.IPv6Extensions
	case k.Routed, k.OddRoute && po.headers[0].protocol == sa.AH:
		return status.RoutingHeader
	case po.n == 2 && !has(sa.AHESPCombined):
		return status.NoAHESP
	}
	return 0
}

// switchedOff reports whether one of the portion's protocols is switched off. A bundle has
// both, even if the frame lacks one.
func (p *Pipeline) switchedOff(po *portion) bool {
	for _, h := range po.headers[:po.n] {
		partner := h.sa.Partner
		if p.sad.off(h.sa.Protocol) || partner != nil && p.sad.off(partner.Protocol) {
			return true
		}
	}
	return false
}
