package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// Shape of CCM in ESP (RFC 4309, sections 3 and 4).
const (
	ccmSaltSize  = 3
	ccmLenFlags  = counterSize - 1 // RFC 3610's L, less 1; counter and length have L bytes
	ccmAADFlag   = 1 << 6          // in B_0: there is additional data
	ccmMaxAADLen = 1<<16 - 1<<8    // longer additional data has another encoding
)

// ccm is AES-CCM (RFC 3610) as ESP uses it. Its counter block, flags 1 | salt 3
// | IV 8 | counter 4, is CTR's with the flags before the salt. Unsafe for
// concurrent use.
type ccm struct {
	block cipher.Block
	ctr   *ctr
	icv   int
	x     [aes.BlockSize]byte // chaining value of the CBC-MAC
	a0    [aes.BlockSize]byte // counter block 0, then its key stream, which hides the tag
}

// newCCM returns AES-CCM (RFC 4309) for a key of 16, 24 or 32 bytes, a salt of 3
// and an ICV of 8, 12 or 16.
func newCCM(key, salt []byte, icv int) (cipher.AEAD, error) {
	if len(salt) != ccmSaltSize {
		return nil, fmt.Errorf("esp: salt has %d bytes, want %d", len(salt), ccmSaltSize)
	}
	if icv != 8 && icv != 12 && icv != 16 {
		return nil, fmt.Errorf("esp: ICV of %d bytes, CCM has 8, 12 or 16", icv)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	ctr, err := counterMode(block, append([]byte{ccmLenFlags}, salt...))
	if err != nil {
		return nil, err
	}
	return &ccm{block: block, ctr: ctr, icv: icv}, nil
}

func (c *ccm) NonceSize() int { return ivSize }
func (c *ccm) Overhead() int  { return c.icv }

func (c *ccm) Seal(dst, iv, plaintext, aad []byte) []byte {
	n := len(plaintext)
	whole, sealed := extend(dst, n+c.icv)
	tag := c.sum(iv, plaintext, aad)
	c.ctr.xor(sealed[:n], iv, plaintext)
	copy(sealed[n:], tag)
	return whole
}

// Open decrypts first, since the MAC covers the plaintext, and wipes the result if the
// tag is wrong.
func (c *ccm) Open(dst, iv, sealed, aad []byte) ([]byte, error) {
	n := len(sealed) - c.icv
	if n < 0 {
		return nil, errOpen
	}
	whole, plaintext := extend(dst, n)
	c.ctr.xor(plaintext, iv, sealed[:n])
	if subtle.ConstantTimeCompare(c.sum(iv, plaintext, aad), sealed[n:]) != 1 {
		clear(plaintext)
		return nil, errOpen
	}
	return whole, nil
}

// sum returns the encrypted tag, valid until the next call (RFC 3610, sections 2.2 and
// 2.3):
//
//  1. B_0: flags | nonce 11 | plaintext length 4.
//  2. Additional data after its length of 2 bytes, zero-padded to a block.
//  3. Plaintext, zero-padded to a block.
//  4. Hide the chaining value with the key stream of counter 0.
func (c *ccm) sum(iv, plaintext, aad []byte) []byte {
	if len(aad) >= ccmMaxAADLen {
		panic("esp: CCM additional data too long")
	}
	c.setNonce(iv)
	c.x = c.a0
	c.x[0] |= byte(c.icv-2) / 2 << 3
	binary.BigEndian.PutUint32(c.x[aes.BlockSize-counterSize:], uint32(len(plaintext)))
	if len(aad) > 0 {
		c.x[0] |= ccmAADFlag
		c.block.Encrypt(c.x[:], c.x[:])
		c.x[0] ^= byte(len(aad) >> 8)
		c.x[1] ^= byte(len(aad))
		aad = aad[subtle.XORBytes(c.x[2:], c.x[2:], aad):]
	}
	c.block.Encrypt(c.x[:], c.x[:])
	c.absorb(aad)
	c.absorb(plaintext)

	c.block.Encrypt(c.a0[:], c.a0[:])
	subtle.XORBytes(c.x[:], c.x[:], c.a0[:])
	return c.x[:c.icv]
}

// setNonce makes a0 counter block 0.
func (c *ccm) setNonce(iv []byte) {
	nonceEnd := aes.BlockSize - counterSize
	c.a0 = c.ctr.counter
	setIV(c.a0[nonceEnd-ivSize:nonceEnd], iv)
	clear(c.a0[nonceEnd:])
}

// absorb chains p, zero-padded to a block, into the MAC.
func (c *ccm) absorb(p []byte) {
	for len(p) > 0 {
		p = p[subtle.XORBytes(c.x[:], c.x[:], p):]
		c.block.Encrypt(c.x[:], c.x[:])
	}
}
