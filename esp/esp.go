// Package esp is the Encapsulating Security Payload of RFC 4303 on bare bytes:
// it verifies and opens what it receives, and seals what is sent.
//
// It works on one ESP packet, from its SPI to the end of its ICV, and knows
// neither IP nor Ethernet, nor which SA a packet belongs to. Each suite is a
// cipher.AEAD (aead.go), so that nothing here depends on the algorithm.
package esp

import (
	"crypto/cipher"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"tapsec/sa"
	"tapsec/status"
)

// HeaderLen is SPI and sequence number, 4 bytes each.
const HeaderLen = 8

const trailerLen = 2 // pad length and next header

// Scratch is memory that Open writes to beside the packet. It belongs to one worker.
// Memory that a cipher gets through an interface would otherwise escape to the heap, once
// a packet.
type Scratch struct {
	plain [1 << 16]byte
	aad   [12]byte
	burst burst
}

// Inbound opens the packets of one SA. Everything that follows from the SA is computed at
// construction. Workers share an Inbound, each by its number.
type Inbound struct {
	ivLen, icvLen, align uint8
	esn, padCheck        bool
	workers              uint16
	sa                   *sa.SA                        // whose keys make further ciphers
	first                cipher.AEAD                   // the first worker's, which often is the only one
	others               atomic.Pointer[[]cipher.AEAD] // of the others, each made by its worker at first use
}

// NewInbound keys the SA's suite, for the first of that many workers; the others do so with their
// first packet. An error names the suite and what is wrong with its keys' lengths.
func NewInbound(s *sa.SA, workers int) (*Inbound, error) {
	in := &Inbound{
		ivLen: uint8(s.Suite.IVLen), icvLen: uint8(s.Suite.ICVLen), align: uint8(s.Suite.Block),
		esn: s.ESN, padCheck: s.PadCheck, workers: uint16(workers), sa: s,
	}
	var err error
	if in.first, err = newAEAD(s.Suite, s.EncryptionKey, s.IntegrityKey); err != nil {
		return nil, err
	}
	return in, nil
}

// Rest drops the keyed suite, most of an SA's memory, until a packet needs it. No packet has been
// opened yet.
func (in *Inbound) Rest() { in.first = nil }

// Opened is what an opened packet holds. Its Len bytes of payload begin after header and
// IV, in place of the ciphertext.
type Opened struct {
	Len        int
	PadLen     uint8
	NextHeader uint8
}

// Open verifies packet and decrypts it in place (RFC 4303 section 3.4). number is the
// 64-bit sequence number. A packet that fails stays as it was. The reason is Verified,
// ESPLength, ESPICV, PadLength or PadBytes.
//
//  1. Is there room for pad length and next header, in whole blocks?
//  2. Verify the ICV and decrypt, into scratch.
//  3. Check pad length and pad bytes there (section 2.4).
//  4. Replace the ciphertext by the plaintext.
func (in *Inbound) Open(worker int, packet []byte, number uint64, scratch *Scratch) (Opened, status.Reason) {
	start, _, whole := in.bounds(packet)
	if !whole {
		return Opened{}, status.ESPLength
	}
	plain, tried, good := scratch.burst.take(in, packet, number)
	if !tried {
		opened, err := in.aead(worker).Open(scratch.plain[:0], packet[HeaderLen:start], packet[start:], in.aad(packet, number, scratch))
		plain, good = opened, err == nil
	}
	if !good {
		return Opened{}, status.ESPICV
	}
	o, reason := in.trailer(plain)
	if reason == status.Verified {
		copy(packet[start:], plain)
	}
	return o, reason
}

// bounds are the offsets of a packet's ciphertext and of its ICV. whole is false if pad length and next
// header have no room between them, or it is no whole number of blocks.
func (in *Inbound) bounds(packet []byte) (start, end int, whole bool) {
	start, end = HeaderLen+int(in.ivLen), len(packet)-int(in.icvLen)
	return start, end, end-start >= trailerLen && (end-start)%int(in.align) == 0
}

// ICV is the one that packet would have to carry to be authentic. It is for telling people
// about a packet that Open has refused: the price is that of opening it twice.
func (in *Inbound) ICV(worker int, packet []byte, number uint64, scratch *Scratch) []byte {
	start, end, _ := in.bounds(packet)
	iv, sealed, aad := packet[HeaderLen:start], packet[start:end], in.aad(packet, number, scratch)
	aead := in.aead(worker)
	if c, ok := aead.(*composite); ok {
		return slices.Clone(c.sum(iv, sealed, aad))
	}
	// A combined mode adds a key stream, or nothing: sealing what is sealed opens it, and sealing
	// that once more makes the ICV.
	plain := aead.Seal(nil, iv, sealed, aad)[:len(sealed)]
	return aead.Seal(nil, iv, plain, aad)[len(sealed):]
}

// trailer reads pad, pad length and next header at the end of the plaintext.
func (in *Inbound) trailer(plain []byte) (Opened, status.Reason) {
	n := len(plain) - trailerLen
	pad := int(plain[n])
	if pad > n {
		return Opened{}, status.PadLength
	}
	if in.padCheck {
		for i, b := range plain[n-pad : n] {
			if b != byte(i+1) {
				return Opened{}, status.PadBytes
			}
		}
	}
	return Opened{Len: n - pad, PadLen: plain[n], NextHeader: plain[n+1]}, status.Verified
}

// aad is SPI and sequence number as they are in the packet; with ESN the high
// half stands between them (RFC 4106 section 5).
func (in *Inbound) aad(packet []byte, number uint64, s *Scratch) []byte {
	if !in.esn {
		return packet[:HeaderLen]
	}
	copy(s.aad[:4], packet)
	binary.BigEndian.PutUint64(s.aad[4:], number)
	return s.aad[:]
}

// aead is the worker's own cipher.
func (in *Inbound) aead(worker int) cipher.AEAD {
	own := &in.first
	if worker > 0 {
		own = in.other(worker - 1)
	}
	if *own == nil {
		*own = in.again()
	}
	return *own
}

// other is the place of a further worker's cipher. Any of them makes the places of all.
func (in *Inbound) other(i int) *cipher.AEAD {
	if in.others.Load() == nil {
		all := make([]cipher.AEAD, in.workers-1)
		in.others.CompareAndSwap(nil, &all)
	}
	return &(*in.others.Load())[i]
}

// again makes a cipher from keys that worked once, which cannot fail.
func (in *Inbound) again() cipher.AEAD {
	c, err := newAEAD(in.sa.Suite, in.sa.EncryptionKey, in.sa.IntegrityKey)
	if err != nil {
		panic("esp: a suite was keyed once but not twice")
	}
	return c
}
