package esp

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"tapsec/sa"
)

// Outbound seals the packets of one SA. It is unsafe for concurrent use.
type Outbound struct {
	aead cipher.AEAD
	sa   *sa.SA
	rand io.Reader
	aad  [12]byte
	iv   [16]byte
}

// NewOutbound keys the SA's suite. CBC takes its IVs from rand; the other
// suites use the sequence number, which never repeats under one key.
func NewOutbound(s *sa.SA, rand io.Reader) (*Outbound, error) {
	aead, err := newAEAD(s.Suite, s.EncryptionKey, s.IntegrityKey)
	if err != nil {
		return nil, err
	}
	return &Outbound{aead: aead, sa: s, rand: rand}, nil
}

// Len is the number of bytes that Seal makes of n bytes of payload.
func (out *Outbound) Len(n int) int {
	return HeaderLen + out.sa.Suite.IVLen + n + out.pad(n) + trailerLen + out.sa.Suite.ICVLen
}

func (out *Outbound) pad(n int) int {
	over := (n + trailerLen) % out.sa.Suite.Block
	return (out.sa.Suite.Block - over) % out.sa.Suite.Block
}

// Seal appends the ESP packet that carries payload (RFC 4303 section 3.3) to dst. The
// error comes from the source of randomness.
func (out *Outbound) Seal(dst, payload []byte, next uint8, number uint64) ([]byte, error) {
	dst, aad, err := out.begin(slices.Grow(dst, out.Len(len(payload))), number)
	if err != nil {
		return nil, err
	}
	plain := out.appendPlain(dst, payload, next)[len(dst):] // where the ciphertext will be
	return out.aead.Seal(dst, out.iv[:out.sa.Suite.IVLen], plain, aad), nil
}

// appendPlain appends what Seal encrypts: payload, pad bytes 1, 2, 3 ..., pad
// length and next header (RFC 4303 section 2.4).
func (out *Outbound) appendPlain(dst, payload []byte, next uint8) []byte {
	pad := out.pad(len(payload))
	dst = append(dst, payload...)
	for i := range pad {
		dst = append(dst, byte(i+1))
	}
	return append(dst, byte(pad), next)
}

// SealPlain is Seal for a plaintext that already ends in its pad, pad length
// and next header, right or wrong; its length must be a multiple of the block.
func (out *Outbound) SealPlain(dst, plain []byte, number uint64) ([]byte, error) {
	dst, aad, err := out.begin(dst, number)
	if err != nil {
		return nil, err
	}
	return out.aead.Seal(dst, out.iv[:out.sa.Suite.IVLen], plain, aad), nil
}

// begin appends what stands before the ciphertext to dst, and makes the additional data.
func (out *Outbound) begin(dst []byte, number uint64) (_, aad []byte, err error) {
	dst = binary.BigEndian.AppendUint32(dst, out.sa.SPI)
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	header := dst[len(dst)-HeaderLen:]
	iv, err := out.nextIV(number)
	if err != nil {
		return nil, nil, err
	}
	aad = append(out.aad[:0], header[:4]...)
	if out.sa.ESN {
		aad = binary.BigEndian.AppendUint64(aad, number)
	} else {
		aad = append(aad, header[4:]...)
	}
	return append(dst, iv...), aad, nil
}

func (out *Outbound) nextIV(number uint64) ([]byte, error) {
	iv := out.iv[:out.sa.Suite.IVLen]
	switch out.sa.Suite.Cipher {
	case sa.Null:
	case sa.DESCBC, sa.TripleDESCBC, sa.AESCBC:
		if _, err := io.ReadFull(out.rand, iv); err != nil {
			return nil, fmt.Errorf("random IV: %w", err)
		}
	default:
		binary.BigEndian.PutUint64(iv, number)
	}
	return iv, nil
}
