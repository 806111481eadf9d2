//go:build !ipsecmb

package esp

import (
	"crypto/aes"
	"crypto/cipher"
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
