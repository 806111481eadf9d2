package mac

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// Sizes of GMAC in IPsec, in bytes (RFC 4543, section 3).
const (
	GMACSaltSize = 4
	GMACIVSize   = 8
	GMACSize     = 16
)

// GMAC is AES-GMAC (RFC 4543) as a hash.Hash whose tag also depends on an IV: for each
// message call Reset, SetIV, Write and Sum, SetIV any time before Sum. It gathers the
// message, because Go's GCM takes it in one piece; the buffer is kept and grows to the
// longest message seen.
//
// The zero value has no key: use NewGMAC.
type GMAC struct {
	gcm   cipher.AEAD
	nonce [GMACSaltSize + GMACIVSize]byte // salt | IV
	hasIV bool
	msg   []byte
}

// NewGMAC returns GMAC under an AES key of 16, 24 or 32 bytes and a salt of 4;
// other lengths are an error.
func NewGMAC(key, salt []byte) (*GMAC, error) {
	if len(salt) != GMACSaltSize {
		return nil, fmt.Errorf("mac: GMAC needs a salt of %d bytes, found %d", GMACSaltSize, len(salt))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mac: GMAC: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("mac: GMAC: %w", err)
	}
	g := &GMAC{gcm: gcm}
	copy(g.nonce[:], salt)
	return g, nil
}

// SetIV sets the message's IV of 8 bytes, and panics at any other length.
func (g *GMAC) SetIV(iv []byte) {
	if len(iv) != GMACIVSize {
		panic("mac: GMAC IV of wrong length")
	}
	copy(g.nonce[GMACSaltSize:], iv)
	g.hasIV = true
}

// Size returns the tag's length, 16 bytes.
func (g *GMAC) Size() int { return GMACSize }

// BlockSize returns GHASH's block length, 16 bytes.
func (g *GMAC) BlockSize() int { return aes.BlockSize }

// Reset forgets the message and its IV.
func (g *GMAC) Reset() {
	g.msg = g.msg[:0]
	g.hasIV = false
}

// Write adds to the message. It never fails.
func (g *GMAC) Write(p []byte) (int, error) {
	g.msg = append(g.msg, p...)
	return len(p), nil
}

// Sum appends the tag to b. It panics if the message has no IV: reusing an IV would give the
// key away.
func (g *GMAC) Sum(b []byte) []byte {
	if !g.hasIV {
		panic("mac: GMAC without an IV")
	}
	return g.gcm.Seal(b, g.nonce[:], nil, g.msg)
}
