package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// ctr is AES in counter mode with the counter block salt 4 | IV 8 | counter 4,
// the counter starting at 1 (RFC 3686, section 4).
//
// Go's CTR has to be made anew for every IV. Its GCM uses the same counter block, starts
// the payload at counter 2 and does not allocate. So the first block is encrypted here,
// GCM does the rest, and its tag is dropped. Unsafe for concurrent use.
type ctr struct {
	block   cipher.Block
	gcm     cipher.AEAD
	counter [aes.BlockSize]byte
	first   [aes.BlockSize]byte
	rest    []byte
}

// counterSize is the length in bytes of the counter at the counter block's end.
const counterSize = 4

// newCTR returns AES-CTR (RFC 3686) for a key of 16, 24 or 32 bytes and a salt
// (there called nonce) of 4.
func newCTR(key, salt []byte) (cipherMode, error) {
	if want := aes.BlockSize - ivSize - counterSize; len(salt) != want {
		return nil, fmt.Errorf("esp: salt has %d bytes, want %d", len(salt), want)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	return counterMode(block, salt)
}

// counterMode returns the ctr whose counter blocks begin with the 4 bytes of
// prefix.
func counterMode(block cipher.Block, prefix []byte) (*ctr, error) {
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	c := &ctr{block: block, gcm: gcm}
	copy(c.counter[:], prefix)
	c.counter[len(c.counter)-1] = 1
	return c, nil
}

func (c *ctr) ivSize() int    { return ivSize }
func (c *ctr) blockSize() int { return 1 }

func (c *ctr) seal(dst, iv, src []byte) { c.xor(dst, iv, src) }
func (c *ctr) open(dst, iv, src []byte) { c.xor(dst, iv, src) }

// xor writes src XOR the key stream to dst, which has src's length and may be src.
func (c *ctr) xor(dst, iv, src []byte) {
	nonce := c.counter[:aes.BlockSize-counterSize]
	setIV(nonce[len(nonce)-ivSize:], iv)
	c.block.Encrypt(c.first[:], c.counter[:])
	n := subtle.XORBytes(dst, src, c.first[:])
	if n < len(src) {
		c.rest = c.gcm.Seal(c.rest[:0], nonce, src[n:], nil)
		copy(dst[n:], c.rest)
	}
}
