// Package ah is the IP Authentication Header of RFC 4302: it verifies the
// header of a received packet and makes that of a sent one.
//
// It works on a packet inside a frame and never changes it: the fields that may have
// changed on the way are zeroed in a copy of the headers. What follows the AH is read in
// place.
package ah

import (
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"slices"

	"tapsec/internal/mac"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// FixedLen is the length of the AH before its ICV field: next header, length in 32-bit
// words less 2, two reserved bytes, SPI, sequence number.
const FixedLen = 12

// Len is the length in bytes of the AH whose first bytes are b, by its own
// length field.
func Len(b []byte) int { return (int(b[1]) + 2) * 4 }

// Scratch is memory that Verify writes to beside the packet. It belongs to one worker.
type Scratch struct {
	headers [1 << 16]byte
	tag     [64]byte
	high    [4]byte
}

// zeros stands for the ICV field in the MAC's input; no ICV field is longer.
var zeros [64]byte

// Inbound verifies the packets of one SA. Workers share an Inbound, each by its number.
type Inbound struct {
	suite   sa.Suite
	key     sa.Key
	esn     bool
	workers []hash.Hash // each made by its worker at first use
}

// NewInbound keys the SA's algorithm, for the first of that many workers; the others do so with
// their first packet. An error names the suite and what is wrong with its key's length.
func NewInbound(s *sa.SA, workers int) (*Inbound, error) {
	m, err := mac.New(s.Suite, s.IntegrityKey)
	if err != nil {
		return nil, err
	}
	in := &Inbound{suite: s.Suite, key: s.IntegrityKey, esn: s.ESN, workers: make([]hash.Hash, workers)}
	in.workers[0] = m
	return in, nil
}

// Rest drops the keyed algorithm until a packet needs it. No packet has been verified yet.
func (in *Inbound) Rest() { clear(in.workers) }

// Fits reports whether the length field of the AH that begins with header suits the SA's
// ICV: rounded up to 4 or to 8 octets in IPv4, where both are in use, and to 8 in IPv6
// (RFC 4302 section 3.3.3.2.1).
func (in *Inbound) Fits(header []byte, version uint8) bool {
	n, field := Len(header), FixedLen+in.suite.IVLen+in.suite.ICVLen
	return n == (field+7)&^7 || version == 4 && n == (field+3)&^3
}

// Verify checks the AH at p.Header of the packet p in frame (RFC 4302 section
// 3.4), whose 64-bit sequence number is number. The caller has checked that its
// SPI is there. The reason is Verified, AHLength, OptionSyntax or AHICV.
//
//  1. Does the AH's length fit the SA and the packet?
//  2. Copy IP header, options and extension headers, the mutable parts zeroed.
//  3. MAC that, the AH with a zero ICV, the rest of the packet as it is, and ESN's
//     high half. GMAC's IV before the ICV and the padding after it count as sent.
//  4. Compare.
func (in *Inbound) Verify(worker int, frame []byte, p *wire.Packet, number uint64, s *Scratch) status.Reason {
	head := frame[p.Header:p.End]
	if !in.Fits(head, p.Version) || Len(head) > len(head) {
		return status.AHLength
	}
	tag, ok := digest(in.mac(worker), frame, p, &in.suite, in.esn, number, s)
	if !ok {
		return status.OptionSyntax
	}
	icv := head[FixedLen+in.suite.IVLen:][:in.suite.ICVLen]
	if subtle.ConstantTimeCompare(tag[:len(icv)], icv) != 1 {
		return status.AHICV
	}
	return status.Verified
}

// ICV is the one that the packet would have to carry to be authentic, nil for one whose
// options do not parse. It is for telling people about a packet that Verify has refused.
func (in *Inbound) ICV(worker int, frame []byte, p *wire.Packet, number uint64, s *Scratch) []byte {
	tag, ok := digest(in.mac(worker), frame, p, &in.suite, in.esn, number, s)
	if !ok {
		return nil
	}
	return slices.Clone(tag[:in.suite.ICVLen])
}

// digest is steps 2 and 3 of Verify. It returns the whole tag; ok is false for options
// that do not parse.
func digest(m hash.Hash, frame []byte, p *wire.Packet, su *sa.Suite, esn bool, number uint64, s *Scratch) (tag []byte, ok bool) {
	headers := append(s.headers[:0], frame[p.Start:p.Header+FixedLen]...)
	if !zeroMutable(headers, p.Version) {
		return nil, false
	}
	behind := frame[p.Header+FixedLen : p.End]
	iv, rest := behind[:su.IVLen], behind[su.IVLen+su.ICVLen:]
	m.Reset()
	m.Write(headers)
	m.Write(iv)
	m.Write(zeros[:su.ICVLen])
	m.Write(rest)
	if esn {
		binary.BigEndian.PutUint32(s.high[:], uint32(number>>32))
		m.Write(s.high[:])
	}
	if g, ok := m.(*mac.GMAC); ok {
		g.SetIV(iv)
	}
	return m.Sum(s.tag[:0]), true
}

func (in *Inbound) mac(worker int) hash.Hash {
	if m := in.workers[worker]; m != nil {
		return m
	}
	m, err := mac.New(in.suite, in.key)
	if err != nil {
		panic("ah: a suite was keyed once but not twice")
	}
	in.workers[worker] = m
	return m
}
