package pipeline_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"tapsec/sa"
	"tapsec/status"
)

// modelNIC is the NIC once more, read off the contract and written for the eye:
// it lists SAs, copies frames, and takes its cryptography from the standard
// library. It says everything of a frame but reasons and handles.
type modelNIC struct {
	sas                               []*modelSA
	flags                             sa.Flags
	inactive, ahOff, espOff, pressure bool

	// Of the last frame; empty where there is none.
	l3           int
	outer, inner modelPortion
}

type modelSA struct {
	*sa.SA
	partner *modelSA
	t       uint64 // highest number authenticated
	known   bool   // there is one
}

func newModelSA(s *sa.SA) *modelSA {
	m := &modelSA{SA: s, t: s.Seq, known: s.Seq != 0}
	return m
}

// number is contract, ESN: the nearest to T, the one ahead where two are.
func (s *modelSA) number(low uint32) uint64 {
	if !s.ESN {
		return uint64(low)
	}
	if !s.known {
		return uint64(s.SeqHigh)<<32 | uint64(low)
	}
	best, distance := uint64(0), ^uint64(0)
	for high := max(s.t>>32, 1) - 1; high <= s.t>>32+1; high++ {
		n := high<<32 | uint64(low)
		if d := max(n, s.t) - min(n, s.t); d < distance || d == distance && n > best {
			best, distance = n, d
		}
	}
	return best
}

// modelPacket is an IP packet as the contract's last section has it.
type modelPacket struct {
	version                                           int
	start, header, end, reach                         int
	proto                                             byte
	src, dst                                          netip.Addr
	fragment, later, options, left, odd, jumbo, short bool
	extensions                                        [][2]int // number and offset
}

func modelParse(f []byte, start, limit, version int) (p modelPacket, ok bool) {
	b := f[start:limit]
	if len(b) < 20 || int(b[0]>>4) != version || version == 6 && len(b) < 40 {
		return p, false
	}
	p.version, p.start = version, start
	if version == 6 {
		p.end = start + 40 + int(binary.BigEndian.Uint16(b[4:]))
		if p.jumbo = p.end == start+40; p.jumbo {
			p.end = limit
		}
		p.src, p.dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	} else {
		p.proto, p.header, p.end = b[9], start+4*int(b[0]&15), start+int(binary.BigEndian.Uint16(b[2:]))
		if p.header < start+20 || p.end < p.header || p.header > limit {
			return p, false
		}
		p.options = p.header > start+20
		p.fragment, p.later = b[6]&0x3f|b[7] != 0, b[6]&0x1f|b[7] != 0
		p.src, p.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	}
	p.short, p.reach = p.end > limit, min(p.end, limit)
	return p, version == 4 || p.chain(f)
}

func (p *modelPacket) chain(f []byte) bool {
	p.proto, p.header = f[p.start+6], p.start+40
	for !p.later && (p.proto == 0 || p.proto == 43 || p.proto == 44 || p.proto == 60) {
		if p.header+8 > p.reach || p.proto == 0 && len(p.extensions) > 0 {
			return false
		}
		h := f[p.header:p.reach]
		n := 8 + 8*int(h[1])
		if p.proto == 44 {
			n = 8
			p.fragment, p.later = true, binary.BigEndian.Uint16(h[2:])>>3 != 0
		}
		if n > len(h) {
			return false
		}
		if p.proto == 43 {
			p.odd, p.left = p.odd || h[2] != 0, p.left || h[3] != 0
		}
		p.extensions = append(p.extensions, [2]int{int(p.proto), p.header})
		p.proto, p.header = h[0], p.header+n
	}
	return true
}

// modelPortion is one portion for which an SA matched.
type modelPortion struct {
	modelPacket
	headers   []modelHeader
	encap     bool
	stop      int // behind the IPsec packet, by its IP or UDP length
	mismatch  bool
	incapable bool

	verified        bool
	payload, length int // of what it protected
	next            byte
}

type modelHeader struct {
	*modelSA
	protocol sa.Protocol
	at       int
}

func (po *modelPortion) mode() sa.Mode { return po.headers[len(po.headers)-1].Mode }

func (po *modelPortion) add(s *modelSA, protocol sa.Protocol, at int) {
	po.headers = append(po.headers, modelHeader{s, protocol, at})
}

// best is contract, SA lookup, for one protocol.
func (n *modelNIC) best(protocol sa.Protocol, spi uint32, po *modelPortion) *modelSA {
	any := netip.Addr{}
	for _, want := range [][2]netip.Addr{{po.dst, po.src}, {po.dst, any}, {any, any}} {
		for _, s := range n.sas {
			if s.Protocol == protocol && s.SPI == spi && s.Encap == po.encap && s.Dst == want[0] && s.Src == want[1] {
				return s
			}
		}
	}
	return nil
}

// find is contract, Decision order, up to the capabilities: nil where there is
// no IPsec, or none that an SA matches.
func (n *modelNIC) find(f []byte, p modelPacket) *modelPortion {
	po := &modelPortion{modelPacket: p, stop: p.end}
	at, protocol := p.header, sa.Protocol(p.proto)
	if protocol == 17 && at+8 <= p.reach && (binary.BigEndian.Uint16(f[at:]) == 4500 || binary.BigEndian.Uint16(f[at+2:]) == 4500) {
		po.encap, po.stop = true, at+int(binary.BigEndian.Uint16(f[at+4:]))
		at, protocol = at+8, sa.ESP
		if min(po.stop, p.reach) < at+8 || binary.BigEndian.Uint32(f[at:]) == 0 {
			return nil
		}
	}
	spiAt := at
	if protocol == sa.AH {
		spiAt += 4
	}
	if protocol != sa.ESP && protocol != sa.AH || p.later || spiAt+4 > p.reach || n.inactive {
		return nil
	}
	spi := binary.BigEndian.Uint32(f[spiAt:])
	if s := n.best(protocol, spi, po); s != nil {
		po.add(s, protocol, at)
		if protocol == sa.AH {
			n.beneath(f, po)
		} else {
			po.mismatch = s.partner != nil
		}
	} else if s := n.best(protocol^1, spi, po); s != nil { // ESP is 50, AH 51
		po.add(s, protocol, at)
		po.mismatch = true
	} else {
		return nil
	}
	po.incapable = n.lacks(po)
	return po
}

// beneath adds the ESP header behind an AH that is part of the same portion
// (contract, Bundles).
func (n *modelNIC) beneath(f []byte, po *modelPortion) {
	a := po.headers[0]
	if f[a.at] != byte(sa.ESP) {
		po.mismatch = a.partner != nil
		return
	}
	if !a.fits(f, po.version) {
		return
	}
	at := a.at + ahLen(f, a.at)
	readable := at+4 <= po.reach
	switch {
	case a.partner == nil && a.Mode == sa.Transport && readable:
		if e := n.best(sa.ESP, binary.BigEndian.Uint32(f[at:]), po); e != nil {
			po.add(e, sa.ESP, at)
			po.mismatch = e.partner != nil
		}
	case a.partner == nil || at > po.reach:
	case readable && binary.BigEndian.Uint32(f[at:]) != a.partner.SPI:
		po.mismatch = true
	default:
		po.add(a.partner, sa.ESP, at)
	}
}

func ahLen(f []byte, at int) int { return 4 * (int(f[at+1]) + 2) }

// fits is contract row 23 c, as far as the SA goes.
func (h modelHeader) fits(f []byte, version int) bool {
	n, field := ahLen(f, h.at), 12+h.Suite.IVLen+h.Suite.ICVLen
	return n == (field+7)/8*8 || version == 4 && n == (field+3)/4*4
}

func (n *modelNIC) has(f sa.Flags) bool { return n.flags&f == f }

// lacks is contract row 3.
func (n *modelNIC) lacks(po *modelPortion) bool {
	for _, h := range po.headers {
		for _, s := range []*modelSA{h.modelSA, h.partner} {
			if s != nil && (s.Protocol == sa.AH && n.ahOff || s.Protocol == sa.ESP && n.espOff) {
				return true
			}
		}
	}
	return po.fragment || po.jumbo || po.left || po.odd && po.headers[0].protocol == sa.AH ||
		po.version == 4 && !n.has(sa.IPv4) || po.options && !n.has(sa.IPv4Options) ||
		po.version == 6 && !n.has(sa.IPv6) || len(po.extensions) > 0 && !n.has(sa.IPv6ExtensionHeaders) ||
		len(po.headers) == 2 && !n.has(sa.AHESPCombined)
}

// uncombined is contract rows 17, 29 and 31.
func (n *modelNIC) uncombined(inner, outer *modelPortion) bool {
	return inner.mode() == sa.Tunnel || inner.encap && outer.encap || !n.has(sa.TransportTunnelCombined) ||
		outer.encap && !n.has(sa.TransportOverUDPTunnel) || inner.encap && !n.has(sa.UDPTransportOverTunnel)
}

// record is contract, the trailer: a header that is left alone.
func (po *modelPortion) record(f []byte, h modelHeader) status.Record {
	r := status.Record{
		Portion: status.TransportPortion, Protocol: uint8(h.protocol), SPI: h.SPI, State: status.NotProcessed,
		IP: uint16(po.start), IPsec: uint16(h.at), IVLen: uint8(h.Suite.IVLen), ICVLen: uint8(h.Suite.ICVLen),
	}
	if po.mode() == sa.Tunnel {
		r.Portion = status.TunnelPortion
	}
	end, numberEnd := min(po.stop, po.reach), h.at+8
	payload, rest := h.at+8+h.Suite.IVLen, h.Suite.ICVLen
	if h.protocol == sa.AH {
		r.NextHeader = f[h.at]
		numberEnd, payload, rest = h.at+12, h.at+ahLen(f, h.at), 0
	}
	if numberEnd <= end {
		r.Number = h.number(binary.BigEndian.Uint32(f[numberEnd-4:]))
	}
	payload = min(payload, end)
	r.Payload, r.PayloadLen = uint16(payload), uint16(max(payload, end-rest)-payload)
	return r
}

// check verifies a portion in f, which it opens, and returns its records and
// the first failure.
func (po *modelPortion) check(f []byte) (records []status.Record, code status.Code) {
	if po.mismatch {
		code = status.InvalidProtocol
	} else if po.short || po.stop > po.end {
		code = status.InvalidPacketSyntax
	}
	for i, h := range po.headers {
		r := po.record(f, h)
		if code == 0 {
			r.State = status.FailedBefore
			var authentic bool
			if h.protocol == sa.AH {
				authentic, code = po.openAH(f, h, &r)
			} else {
				authentic, code = po.openESP(f, h, &r)
			}
			if authentic {
				r.State = status.FailedAfter
				h.t, h.known = max(h.t, r.Number), true
			}
			if code == 0 {
				r.State = status.ICVValid
				po.payload, po.length, po.next = int(r.Payload), int(r.PayloadLen), r.NextHeader
			}
			r.Code = code
		} else if i == 0 {
			r.State, r.Code = status.FailedBefore, code
		}
		records = append(records, r)
	}
	po.verified = code == 0
	return records, code
}

// openAH is contract rows 23 c, 23 e and the AH ICV.
func (po *modelPortion) openAH(f []byte, h modelHeader, r *status.Record) (authentic bool, code status.Code) {
	if h.at+12 > po.stop || !h.fits(f, po.version) || h.at+ahLen(f, h.at) > po.stop {
		return false, status.InvalidPacketSyntax
	}
	b := bytes.Clone(f[po.start:po.end])
	at := h.at - po.start
	if !po.mutable(b) {
		return false, status.InvalidPacketSyntax
	}
	clear(b[at+12 : at+12+h.Suite.ICVLen])
	if h.ESN {
		b = binary.BigEndian.AppendUint32(b, uint32(r.Number>>32))
	}
	m := hmac.New(sha256.New, h.IntegrityKey.Bytes())
	m.Write(b)
	if !bytes.Equal(m.Sum(nil)[:h.Suite.ICVLen], f[h.at+12:h.at+12+h.Suite.ICVLen]) {
		return false, status.AHICV.Code(r.Portion)
	}
	return true, 0
}

// mutable zeroes in a copy of the packet what may change on the way (contract,
// Headers in detail).
func (po *modelPortion) mutable(b []byte) bool {
	if po.version == 6 {
		b[0], b[1], b[2], b[3], b[7] = 0x60, 0, 0, 0, 0
		for _, e := range po.extensions {
			at := e[1] - po.start
			if e[0] != 43 && !mutableOptions(b[at+2:at+8+8*int(b[at+1])]) {
				return false
			}
		}
		return true
	}
	b[1], b[6], b[7], b[8], b[10], b[11] = 0, 0, 0, 0, 0, 0
	options := b[20 : po.header-po.start]
	for len(options) > 0 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		option := options[:options[1]]
		options = options[len(option):]
		if bytes.IndexByte([]byte{130, 133, 134, 148, 149}, option[0]) < 0 {
			clear(option)
		}
	}
	return true
}

func mutableOptions(o []byte) bool {
	for len(o) > 0 {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			return false
		}
		if o[0]&0x20 != 0 {
			clear(o[2 : 2+int(o[1])])
		}
		o = o[2+int(o[1]):]
	}
	return true
}

// openESP is contract rows 23 b, the ESP ICV, 23 d and 24.
func (po *modelPortion) openESP(f []byte, h modelHeader, r *status.Record) (authentic bool, code status.Code) {
	b := f[h.at:po.stop]
	text := len(b) - 8 - h.Suite.IVLen - h.Suite.ICVLen
	if text < 2 || text%max(4, h.Suite.Block) != 0 {
		return false, status.InvalidPacketSyntax
	}
	plain := h.decrypt(b, r.Number)
	if plain == nil {
		return false, status.ESPICV.Code(r.Portion)
	}
	pad := int(plain[text-2])
	if pad+2 > text {
		return true, status.InvalidPacketSyntax
	}
	for i := range pad {
		if h.PadCheck && int(plain[text-2-pad+i]) != i+1 {
			return true, status.GenericError
		}
	}
	r.PayloadLen, r.PadLen, r.NextHeader = uint16(text-2-pad), byte(pad), plain[text-1]
	copy(f[r.Payload:], plain)
	return true, 0
}

// decrypt knows the suites of scenarios; it returns nil where the ICV is wrong.
func (h modelHeader) decrypt(b []byte, number uint64) []byte {
	key := h.EncryptionKey.Bytes()
	iv, sealed := b[8:8+h.Suite.IVLen], b[8+h.Suite.IVLen:]
	text := bytes.Clone(sealed[:len(sealed)-h.Suite.ICVLen])
	if h.Suite.Cipher == sa.AESGCM {
		block, _ := aes.NewCipher(key[:16])
		gcm, _ := cipher.NewGCM(block)
		aad := bytes.Clone(b[:8])
		if h.ESN {
			aad = binary.BigEndian.AppendUint64(bytes.Clone(b[:4]), number)
		}
		plain, _ := gcm.Open(nil, append(bytes.Clone(key[16:]), iv...), sealed, aad)
		return plain
	}
	m := hmac.New(sha256.New, h.IntegrityKey.Bytes())
	m.Write(b[:len(b)-h.Suite.ICVLen])
	if h.ESN {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(number>>32)))
	}
	if !bytes.Equal(m.Sum(nil)[:h.Suite.ICVLen], sealed[len(text):]) {
		return nil
	}
	if h.Suite.Cipher == sa.AESCBC {
		block, _ := aes.NewCipher(key)
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	}
	return text
}

// judge says what becomes of a frame: the word, the records without reasons and
// handles, and the frame in place, padded.
func (n *modelNIC) judge(frame []byte) (word status.Word, records []status.Record, body []byte) {
	body = padded(bytes.Clone(frame))
	n.outer, n.inner = modelPortion{}, modelPortion{}
	version := 0
	if n.l3, version = modelEthernet(frame); version != 0 {
		word, records = n.packet(body[:len(frame)], version)
	}
	if n.pressure && len(records) > 0 {
		word |= status.SADeleteReq
		records[0].DeleteSA = true
	}
	return word, records, body
}

func modelEthernet(f []byte) (at, version int) {
	tags := 0
	for at = 12; at+2 <= len(f); at += 4 {
		switch binary.BigEndian.Uint16(f[at:]) {
		case 0x0800:
			return at + 2, 4
		case 0x86dd:
			return at + 2, 6
		case 0x8100, 0x88a8:
			if tags++; tags <= 2 {
				continue
			}
		}
		break
	}
	return 0, 0
}

func (n *modelNIC) packet(f []byte, version int) (status.Word, []status.Record) {
	p, ok := modelParse(f, n.l3, len(f), version)
	if !ok {
		return 0, nil
	}
	outer := n.find(f, p)
	if outer == nil {
		return 0, nil
	}
	if outer.incapable {
		return 0, outer.leave(f)
	}
	records, code := outer.check(f)
	n.outer = *outer
	word := status.CryptoDone.WithCode(code)
	version = map[byte]int{4: 4, 41: 6}[outer.next]
	if code != 0 || outer.mode() == sa.Transport || version == 0 {
		return word, records
	}
	if p, ok = modelParse(f, outer.payload, outer.payload+outer.length, version); !ok {
		return word, records
	}
	n.inner.modelPacket = p
	inner := n.find(f, p)
	if inner == nil {
		return word, records
	}
	if inner.incapable || n.uncombined(inner, outer) {
		return word, append(records, inner.leave(f)...)
	}
	more, code := inner.check(f)
	n.inner = *inner
	return (word | status.NextCryptoDone).WithCode(code), append(records, more...)
}

func (po *modelPortion) leave(f []byte) (records []status.Record) {
	for _, h := range po.headers {
		records = append(records, po.record(f, h))
	}
	return records
}

// decapped is the last frame in decap form, made of its form in place, and the
// number of portions that are gone.
func (n *modelNIC) decapped(f []byte) (frame []byte, removed int) {
	last, link := &n.outer, bytes.Clone(f[:n.l3])
	if n.outer.verified && n.outer.mode() == sa.Tunnel {
		if last = &n.inner; last.version == 0 || last.short {
			return f, 0
		}
		removed++
		binary.BigEndian.PutUint16(link[n.l3-2:], map[int]uint16{4: 0x0800, 6: 0x86dd}[last.version])
	}
	if !last.verified {
		if removed == 0 {
			return f, 0
		}
		return append(link, f[last.start:last.end]...), removed
	}
	return append(link, last.stripped(f)...), removed + 1
}

// stripped is the packet of a verified transport portion without it (contract,
// Decap form; RFC 1624).
func (po *modelPortion) stripped(f []byte) []byte {
	b := append(bytes.Clone(f[po.start:po.header]), f[po.payload:po.payload+po.length]...)
	be := binary.BigEndian
	if po.version == 6 {
		be.PutUint16(b[4:], uint16(len(b)-40))
		at := 6 // of the byte that announced the portion
		for _, e := range po.extensions {
			at = e[1] - po.start
		}
		b[at] = po.next
		return b
	}
	sum := int(^be.Uint16(b[10:])) + int(^be.Uint16(b[2:])) + int(^be.Uint16(b[8:]))
	be.PutUint16(b[2:], uint16(len(b)))
	b[9] = po.next
	sum += int(be.Uint16(b[2:])) + int(be.Uint16(b[8:]))
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	be.PutUint16(b[10:], ^uint16(sum))
	return b
}
