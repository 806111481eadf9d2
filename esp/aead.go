package esp

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// Every suite of ESP is a cipher.AEAD, combined modes and cipher plus MAC alike,
// so that sealing and opening have no switch on the algorithm:
//
//   - nonce is the IV as it lies in the packet: 8 bytes for GCM, GMAC, CCM,
//     ChaCha20-Poly1305 and CTR, the block length for CBC, none for NULL.
//     NonceSize says which. The salt is inside the object.
//   - additionalData is SPI | sequence number (8 bytes), or with ESN
//     SPI | high half | low half (12 bytes; RFC 4106, section 5). Cipher plus
//     MAC takes the same form and puts the high half where RFC 4303, section
//     2.2.1, wants it: after the ciphertext.
//   - plaintext is payload | padding | pad length | next header, a multiple of 4
//     bytes (RFC 4303, section 2.4); sealed is ciphertext | ICV. Overhead is the
//     ICV's length, 0 without a MAC.
//   - Seal and Open append to dst and write nothing after what they append.
//     dst is another buffer than the input, or input[:0].
//   - Open returns an error if the ICV or a length is wrong, and then leaves no
//     plaintext in dst. A nonce or additionalData of the wrong length, or a
//     plaintext that is no multiple of the block, is the programmer's error and
//     panics.
//   - No suite may be used concurrently: nonces and scratch that would escape
//     through an interface live in the object. Have one per SA and worker. It
//     allocates while its scratch grows to the longest packet seen, then never.
//
// The constructors, whose errors are about keys, salts and ICV lengths:
//
//	newGCM(key, salt, icv)               AES-GCM, ICV of 8, 12 or 16 (RFC 4106)
//	newGMAC(key, salt)                   AES-GMAC, no encryption (RFC 4543)
//	newCCM(key, salt, icv)               AES-CCM, ICV of 8, 12 or 16 (RFC 4309)
//	newChaCha20Poly1305(key, salt)       RFC 7634
//	newComposite(mode, auth, icv)        a cipherMode and a MAC of package mac, or nil:
//	  newCBC(aes.NewCipher, key)           AES-CBC (RFC 3602); DES and 3DES by
//	                                       des.NewCipher, des.NewTripleDESCipher
//	  newCTR(key, salt)                    AES-CTR (RFC 3686)
//	  null{}                               NULL (RFC 2410)

// ivSize is the length in bytes of the IV of all suites but CBC and NULL.
const ivSize = 8

// errOpen is Open's only error, whatever was wrong with the packet.
var errOpen = errors.New("esp: packet authentication failed")

// salted is an AEAD whose nonce is salt | IV. Unsafe for concurrent use.
type salted struct {
	cipher.AEAD
	nonce [maxNonce]byte
	size  uint8 // of the nonce
}

const maxNonce = 12

// newSalted fails unless salt and IV make up the nonce.
func newSalted(aead cipher.AEAD, salt []byte) (cipher.AEAD, error) {
	if want := aead.NonceSize() - ivSize; len(salt) != want {
		return nil, fmt.Errorf("esp: salt has %d bytes, want %d", len(salt), want)
	}
	s := &salted{AEAD: aead, size: uint8(aead.NonceSize())}
	copy(s.nonce[:s.size], salt)
	return s, nil
}

func (s *salted) NonceSize() int { return ivSize }

func (s *salted) Seal(dst, iv, plaintext, aad []byte) []byte {
	return s.AEAD.Seal(dst, s.with(iv), plaintext, aad)
}

func (s *salted) Open(dst, iv, sealed, aad []byte) ([]byte, error) {
	return s.AEAD.Open(dst, s.with(iv), sealed, aad)
}

// with is the nonce with this IV.
func (s *salted) with(iv []byte) []byte {
	nonce := s.nonce[:s.size]
	setIV(nonce[len(nonce)-ivSize:], iv)
	return nonce
}

// setIV copies an IV to its place in a nonce.
func setIV(dst, iv []byte) {
	if len(iv) != len(dst) {
		panic("esp: IV of wrong length")
	}
	copy(dst, iv)
}

// newChaCha20Poly1305 returns ChaCha20-Poly1305 (RFC 7634) for a key of 32 bytes
// and a salt of 4.
func newChaCha20Poly1305(key, salt []byte) (cipher.AEAD, error) {
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	return newSalted(aead, salt)
}

// extend appends n bytes of any content to dst, and returns the whole and the new part.
func extend(dst []byte, n int) (whole, added []byte) {
	whole = slices.Grow(dst, n)[:len(dst)+n]
	return whole, whole[len(dst):]
}
