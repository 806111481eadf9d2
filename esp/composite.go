package esp

import (
	"crypto/subtle"
	"hash"
)

// cipherMode is encryption without integrity. seal and open take an IV of ivSize bytes
// and a src that is a multiple of blockSize; dst is as long as src, and the same
// memory or other.
type cipherMode interface {
	ivSize() int
	blockSize() int
	seal(dst, iv, src []byte)
	open(dst, iv, src []byte)
}

// null is NULL encryption (RFC 2410): no IV, and the text as it is. Safe for
// concurrent use.
type null struct{}

func (null) ivSize() int             { return 0 }
func (null) blockSize() int          { return 1 }
func (null) seal(dst, _, src []byte) { copy(dst, src) }
func (null) open(dst, _, src []byte) { copy(dst, src) }

// composite is a cipher mode with a MAC over the ciphertext. Unsafe for concurrent use.
type composite struct {
	mode cipherMode
	auth hash.Hash // nil: no integrity
	icv  int
	tag  []byte
	lane *lane // nil: opened by itself
}

// newComposite returns the mode with the MAC auth, truncated to icv bytes. auth nil and
// icv 0 mean no integrity, for the ESP of a bundle whose AH provides it. An icv longer
// than auth's output panics.
func newComposite(m cipherMode, auth hash.Hash, icv int) *composite {
	c := &composite{mode: m, auth: auth, icv: icv}
	if auth != nil {
		c.tag = make([]byte, 0, auth.Size())
	}
	if (auth == nil) != (icv == 0) || icv < 0 || icv > cap(c.tag) {
		panic("esp: ICV length does not fit the MAC")
	}
	return c
}

func (c *composite) NonceSize() int { return c.mode.ivSize() }
func (c *composite) Overhead() int  { return c.icv }

// Seal encrypts, then authenticates (RFC 4303, section 3.3.2.1).
func (c *composite) Seal(dst, iv, plaintext, aad []byte) []byte {
	c.check(iv, aad)
	n := len(plaintext)
	if n%c.mode.blockSize() != 0 {
		panic("esp: plaintext is no multiple of the block")
	}
	whole, sealed := extend(dst, n+c.icv)
	c.mode.seal(sealed[:n], iv, plaintext)
	copy(sealed[n:], c.sum(iv, sealed[:n], aad))
	return whole
}

// Open authenticates, then decrypts (RFC 4303, section 3.4.4.1).
func (c *composite) Open(dst, iv, sealed, aad []byte) ([]byte, error) {
	c.check(iv, aad)
	n := len(sealed) - c.icv
	if n < 0 || n%c.mode.blockSize() != 0 {
		return nil, errOpen
	}
	if subtle.ConstantTimeCompare(c.sum(iv, sealed[:n], aad), sealed[n:]) != 1 {
		return nil, errOpen
	}
	whole, plaintext := extend(dst, n)
	c.mode.open(plaintext, iv, sealed[:n])
	return whole, nil
}

// sum returns the ICV, valid until the next call. It covers SPI, low half, IV, ciphertext
// and, with ESN, the high half, which aad has between SPI and low half (RFC 4303, section
// 2.2.1).
func (c *composite) sum(iv, ciphertext, aad []byte) []byte {
	if c.auth == nil {
		return nil
	}
	spi, high, low := aad[:4], aad[4:len(aad)-4], aad[len(aad)-4:]
	c.auth.Reset()
	c.auth.Write(spi)
	c.auth.Write(low)
	c.auth.Write(iv)
	c.auth.Write(ciphertext)
	c.auth.Write(high)
	return c.auth.Sum(c.tag)[:c.icv]
}

func (c *composite) check(iv, aad []byte) {
	if len(iv) != c.mode.ivSize() {
		panic("esp: IV of wrong length")
	}
	if len(aad) != 8 && len(aad) != 12 {
		panic("esp: additional data is neither 8 nor 12 bytes")
	}
}
