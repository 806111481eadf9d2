//go:build !ipsecmb

package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// newBareGCM returns GCM for nonces of 12 bytes and a tag of 8, 12 or 16.
func newBareGCM(key []byte, tag int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	if tag == shortTag {
		return newShortGCM(block)
	}
	return cipher.NewGCMWithTagSize(block, tag)
}

// shortGCM is GCM with a tag of 8 bytes, which Go's GCM does not open; it uses Go's Seal
// alone. Unsafe for concurrent use.
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

// Open works because sealing a ciphertext yields its plaintext:
//
//  1. Seal the ciphertext, drop the tag: the plaintext.
//  2. Seal the plaintext with the additional data: the tag it should have.
//  3. Compare; wipe the plaintext if they differ.
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
