package outbound

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unsafe"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/internal/ledger"
	"tapsec/sa"
	"tapsec/wire"
)

// Errors of Seal, beside those of the ledger.
var (
	ErrPacket   = errors.New("outbound: not one whole IP packet")
	ErrFragment = errors.New("outbound: transport mode takes no fragments (RFC 4303 section 3.3.4)")
	ErrFamily   = errors.New("outbound: the transport-mode SA is of the other IP version")
	ErrRouting  = errors.New("outbound: AH is not computed over a routing header that has segments left")
	ErrTooLong  = errors.New("outbound: the sealed packet exceeds 65535 bytes")
)

// Sealer does the sealing: a packet in, a sealed packet out (RFC 4301 section 5.1), in every
// mode, for bundles and nested SAs, both IP versions, UDP encapsulation and every suite. It
// knows no policy and does not fragment. It is unsafe for concurrent use.
type Sealer struct {
	layers []*layer
	id     *uint16 // theirs
}

// source gives out the sequence numbers of an SA, each once.
type source interface {
	Next(last uint64) (uint64, error) // takes one, which must not exceed last
	Peek() uint64                     // what Next would take
}

// count is a source of the Sealer's own.
type count uint64

func (c *count) Next(last uint64) (uint64, error) {
	n := uint64(*c)
	if n > last {
		return 0, ledger.ErrUsedUp
	}
	*c++
	return n, nil
}

func (c *count) Peek() uint64 { return uint64(*c) }

// layer applies one SA.
type layer struct {
	sa      *sa.SA
	esp     *esp.Outbound // one of the two
	ah      *ah.Outbound
	wraps   bool // adds an IP header of its own
	numbers source
	id      *uint16 // of the latest outer IPv4 header; one random-based count for all SAs of NewSealer
	path    int     // longest packet in bytes that the SA's path takes
	out     []byte  // the packet in work
	buf     []byte  // memory for it where another layer follows
}

// NewSealer makes a Sealer of SAs, innermost first, each applied in its own mode. AH over
// ESP (on the wire IP AH ESP) is the ESP SA followed by the AH SA. If the AH's Bundle names
// the ESP, both are one portion, in tunnel mode with one outer header. Without SAs a packet
// stays as it is.
//
// A tunnel SA needs Src and Dst. CBC's IVs and the first identification of outer IPv4
// headers come from source; nil is crypto/rand. An error names the SA and what is wrong
// with it.
func NewSealer(source io.Reader, sas ...*sa.SA) (*Sealer, error) {
	s := &Sealer{id: new(uint16)}
	// Fragments with the numbers from before a restart may still wait at
	// the receiver, so that none begins where another has (RFC 6864 section 4.3).
	var begin [2]byte
	if _, err := io.ReadFull(cmp.Or(source, rand.Reader), begin[:]); err != nil {
		return nil, fmt.Errorf("outbound: %w", err)
	}
	*s.id = be.Uint16(begin[:])
	layers, err := s.ready(source, sas, nil)
	if err != nil {
		return nil, err
	}
	s.layers = layers
	return s, nil
}

// ready makes the layers of SAs, but for those of which had has one that is
// unchanged.
func (s *Sealer) ready(source io.Reader, sas []*sa.SA, had func(name string) *layer) (layers []*layer, err error) {
	source = cmp.Or(source, rand.Reader)
	var beneath *sa.SA
	for _, a := range sas {
		var l *layer
		if had != nil {
			l = had(a.Name)
		}
		if l == nil || !l.sa.Unchanged(a) {
			l = &layer{id: s.id}
			err = l.init(source, a)
		}
		if err == nil && a.Bundle != "" && (beneath == nil || beneath.Name != a.Bundle || beneath.Mode != a.Mode) {
			err = fmt.Errorf("expected the SA %s beneath it, in the same mode", a.Bundle)
		}
		if err != nil {
			return nil, fmt.Errorf("outbound: %s: %w", a.Name, err)
		}
		layers, beneath = append(layers, l), a
	}
	return layers, nil
}

func (l *layer) init(source io.Reader, a *sa.SA) (err error) {
	if bad := a.Check(true, true); len(bad) > 0 {
		return bad[0]
	}
	if a.Mode == sa.Auto {
		return errors.New("mode auto seals nothing; say mode: transport or tunnel")
	}
	first := count(a.FirstNumber())
	l.sa, l.numbers, l.path = a, &first, math.MaxInt
	l.wraps = a.Mode == sa.Tunnel && a.Bundle == ""
	if l.wraps && !a.Src.IsValid() {
		return errors.New("a tunnel needs src and dst for its outer header")
	}
	if a.Protocol == sa.AH {
		l.ah, err = ah.NewOutbound(a)
	} else {
		l.esp, err = esp.NewOutbound(a, source)
	}
	return err
}

// lastNumber is the highest number that an SA sends (RFC 4303 section 3.3.3).
func lastNumber(a *sa.SA) uint64 {
	if a.ESN {
		return math.MaxUint64 - 1
	}
	return math.MaxUint32
}

// SetNumber sets the 64-bit sequence number of the next packet of SA i, by its place in
// NewSealer. Without it numbers begin after oseq or seq_high, else at 1. Most suites derive
// the IV from the number: a real key must never see one twice.
func (s *Sealer) SetNumber(i int, next uint64) {
	n := count(next)
	s.layers[i].numbers = &n
}

// Number is the sequence number of the next packet of SA i.
func (s *Sealer) Number(i int) uint64 { return s.layers[i].numbers.Peek() }

// Stack makes a Sealer of some SAs of s, innermost first, each given by its place in
// NewSealer. Both share sequence numbers and must not be used concurrently. It panics if an
// SA is given twice.
func (s *Sealer) Stack(sas ...int) *Sealer {
	part := &Sealer{}
	for _, i := range sas {
		if slices.Contains(part.layers, s.layers[i]) {
			panic("outbound: an SA twice in one stack")
		}
		part.layers = append(part.layers, s.layers[i])
	}
	return part
}

// Seal appends the sealed form of the IP packet to dst. Bytes beyond the packet's own length
// are left out. The error is one of the above, ah.ErrOptions, or that of the source of
// randomness or numbers; numbers may then have been used.
func (s *Sealer) Seal(dst, packet []byte) ([]byte, error) {
	p, err := parse(packet)
	if err != nil {
		return nil, err
	}
	return s.seal(dst, packet[:p.End], &p)
}

// seal is Seal for packet p, which then describes the result. The last layer writes where the result belongs,
// if there is room.
func (s *Sealer) seal(dst, packet []byte, p *wire.Packet) ([]byte, error) {
	place := dst[len(dst):]
	for i, l := range s.layers {
		l.out = l.buf[:0]
		if i == len(s.layers)-1 {
			l.out = place
		}
		if err := l.seal(packet, p); err != nil {
			return nil, err
		}
		if packet = l.out; i < len(s.layers)-1 {
			l.buf = packet
		}
	}
	if unsafe.SliceData(packet) == unsafe.SliceData(place) {
		return dst[:len(dst)+len(packet)], nil
	}
	return append(dst, packet...), nil
}

// parse finds the headers of a packet, which must be complete.
func parse(packet []byte) (wire.Packet, error) {
	if len(packet) == 0 {
		return wire.Packet{}, ErrPacket
	}
	version := packet[0] >> 4
	p, err := wire.ParseIP(packet, 0, len(packet), version)
	if err != nil || p.Short || version != 4 && version != 6 {
		return wire.Packet{}, ErrPacket
	}
	return p, nil
}

// seal applies one SA (RFC 4303 section 3.3, RFC 4302 section 3.3) to packet p, and leaves the
// result in l.out, which p then describes.
//
//  1. Take the sequence number.
//  2. Begin with the headers: a new IP header, or those of the packet.
//  3. Append what is sealed. AH leaves its ICV open.
//  4. Mend the IP header: what follows it, its length, its checksum.
//  5. Fill in what covers the finished packet: the AH's ICV, a UDP checksum.
func (l *layer) seal(packet []byte, p *wire.Packet) error {
	number, err := l.numbers.Next(lastNumber(l.sa))
	if err != nil {
		return err
	}
	payload, next, err := l.headers(packet, p)
	if err != nil {
		return err
	}
	if l.ah != nil {
		l.appendAH(payload, next, number)
	} else if err := l.appendESP(payload, next, number); err != nil {
		return err
	}
	l.out[p.ProtoAt] = l.proto()
	if !wire.SetLength(l.out) {
		return ErrTooLong
	}
	p.Proto, p.End, p.Reach = l.proto(), len(l.out), len(l.out)
	switch {
	case l.ah != nil:
		return l.ah.Sign(l.out, p, number)
	case l.sa.Encap && p.Version == 6: // the checksum must not be 0 (RFC 8200 section 8.1)
		wire.UpperSum(l.out, p)
	}
	return nil
}

// headers starts l.out with the headers before IPsec, makes p describe them, and returns
// what is to be sealed.
func (l *layer) headers(packet []byte, p *wire.Packet) (payload []byte, next uint8, err error) {
	if l.wraps {
		next = wire.ProtoIPv4
		if p.Version == 6 {
			next = wire.ProtoIPv6
		}
		*l.id++
		l.out = outer(l.out, l.sa, l.proto(), *l.id, packet)
		*p = wire.Packet{Version: 4, ProtoAt: 9, Header: wire.IPv4Len, Src: l.sa.Src, Dst: l.sa.Dst}
		if l.sa.Dst.Is6() {
			p.Version, p.ProtoAt, p.Header = 6, 6, wire.IPv6Len
		}
		return packet, next, nil
	}
	switch {
	case p.Fragment:
		return nil, 0, ErrFragment
	case l.sa.Dst.IsValid() && l.sa.Dst.Is4() != (p.Version == 4):
		return nil, 0, ErrFamily
	case l.ah != nil && (p.Routed || p.OddRoute):
		return nil, 0, ErrRouting
	}
	l.out = append(l.out, packet[:p.Header]...)
	return packet[p.Header:p.End], p.Proto, nil
}

// proto is the protocol that the IP header announces.
func (l *layer) proto() uint8 {
	if l.sa.Encap {
		return wire.ProtoUDP
	}
	return uint8(l.sa.Protocol)
}

func (l *layer) appendAH(payload []byte, next uint8, number uint64) {
	l.out = append(l.ah.Append(l.out, next, number), payload...)
}

// appendESP appends ESP, with encapsulation after a UDP header, in IPv4 without a checksum
// (RFC 3948 section 2.1).
func (l *layer) appendESP(payload []byte, next uint8, number uint64) (err error) {
	at := len(l.out)
	if l.sa.Encap {
		l.out = appendUDP(l.out, l.sa)
	}
	if l.out, err = l.esp.Seal(l.out, payload, next, number); err != nil {
		return err
	}
	if l.sa.Encap {
		setUDPLen(l.out[at:])
	}
	return nil
}
