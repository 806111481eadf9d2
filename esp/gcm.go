package esp

import (
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// newGCM returns AES-GCM (RFC 4106) for a key of 16, 24 or 32 bytes, a salt of 4
// and an ICV of 8, 12 or 16. It is Go's, or with the build tag ipsecmb that of
// Intel's library.
func newGCM(key, salt []byte, icv int) (cipher.AEAD, error) {
	if icv != shortTag && icv != 12 && icv != 16 {
		return nil, fmt.Errorf("esp: ICV of %d bytes, GCM has 8, 12 or 16", icv)
	}
	aead, err := newBareGCM(key, icv)
	if err != nil {
		return nil, err
	}
	return newSalted(aead, salt)
}

// shortTag is the shortest ICV of RFC 4106, in bytes.
const shortTag = 8

// shortGCM is GCM with a tag of 8 bytes, which Go's own refuses to check; it is
// made of Go's Seal alone. Unsafe for concurrent use.
type shortGCM struct {
	gcm cipher.AEAD
	buf []byte
}

func newShortGCM(block cipher.Block) (cipher.AEAD, error) {
	gcm, err := cipher.NewGCM(block)
	return &shortGCM{gcm: gcm}, err
}

func (s *shortGCM) NonceSize() int { return s.gcm.NonceSize() }
func (s *shortGCM) Overhead() int  { return shortTag }

func (s *shortGCM) Seal(dst, nonce, plaintext, aad []byte) []byte {
	s.buf = s.gcm.Seal(s.buf[:0], nonce, plaintext, aad)
	return append(dst, s.buf[:len(plaintext)+shortTag]...)
}

// Open, since sealing a ciphertext yields its plaintext:
//
//  1. Seal the ciphertext, drop the tag: the plaintext.
//  2. Seal the plaintext with the additional data: the tag it should have.
//  3. Compare; wipe the plaintext where they differ.
func (s *shortGCM) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	n := len(sealed) - shortTag
	if n < 0 {
		return nil, errOpen
	}
	s.buf = s.gcm.Seal(s.buf[:0], nonce, sealed[:n], nil)
	whole, plaintext := extend(dst, n)
	copy(plaintext, s.buf)

	s.buf = s.gcm.Seal(s.buf[:0], nonce, plaintext, aad)
	if subtle.ConstantTimeCompare(s.buf[n:n+shortTag], sealed[n:]) != 1 {
		clear(plaintext)
		return nil, errOpen
	}
	return whole, nil
}
