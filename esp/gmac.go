package esp

import (
	"crypto/cipher"
	"crypto/subtle"

	"tapsec/internal/mac"
)

// gmac is ESP's NULL encryption with AES-GMAC. The MAC covers the additional
// data in AEAD form, the IV and the payload in the clear (RFC 4543, section 3).
// Unsafe for concurrent use.
type gmac struct {
	hash *mac.GMAC
	tag  []byte
}

// newGMAC returns AES-GMAC (RFC 4543) for a key of 16, 24 or 32 bytes and a salt
// of 4; the ICV has 16.
func newGMAC(key, salt []byte) (cipher.AEAD, error) {
	hash, err := mac.NewGMAC(key, salt)
	if err != nil {
		return nil, err
	}
	return &gmac{hash: hash, tag: make([]byte, 0, mac.GMACSize)}, nil
}

func (g *gmac) NonceSize() int { return mac.GMACIVSize }
func (g *gmac) Overhead() int  { return mac.GMACSize }

func (g *gmac) Seal(dst, iv, plaintext, aad []byte) []byte {
	tag := g.sum(iv, plaintext, aad)
	return append(append(dst, plaintext...), tag...)
}

func (g *gmac) Open(dst, iv, sealed, aad []byte) ([]byte, error) {
	n := len(sealed) - mac.GMACSize
	if n < 0 || subtle.ConstantTimeCompare(g.sum(iv, sealed[:n], aad), sealed[n:]) != 1 {
		return nil, errOpen
	}
	return append(dst, sealed[:n]...), nil
}

// sum returns the tag, valid until the next call.
func (g *gmac) sum(iv, payload, aad []byte) []byte {
	g.hash.Reset()
	g.hash.SetIV(iv)
	g.hash.Write(aad)
	g.hash.Write(iv)
	g.hash.Write(payload)
	return g.hash.Sum(g.tag)
}
