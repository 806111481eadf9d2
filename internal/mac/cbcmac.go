package mac

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"hash"
)

// cbcMAC is a CBC-MAC over AES that masks the last block with one of two
// subkeys, which makes it sound for messages of any length. CMAC and XCBC are
// this construction and differ only in where their keys come from.
type cbcMAC struct {
	block  cipher.Block
	whole  [aes.BlockSize]byte // masks a last block that is full
	padded [aes.BlockSize]byte // masks a last block that had to be padded
	x      [aes.BlockSize]byte // chaining value, the pending bytes already mixed in
	n      int                 // pending bytes in x, 0 to 16; the last block waits for Sum

	// last is Sum's scratch: on the stack it would escape through block.
	last [aes.BlockSize]byte
}

// CMAC returns AES-CMAC (RFC 4493), a tag of 16 bytes. The key has 16 bytes for
// IPsec (RFC 4494); 24 and 32 work too (NIST SP 800-38B), others are an error.
func CMAC(key []byte) (hash.Hash, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mac: CMAC: %w", err)
	}
	m := &cbcMAC{block: block}
	block.Encrypt(m.whole[:], m.whole[:])
	m.whole = double(m.whole)
	m.padded = double(m.whole)
	return m, nil
}

// XCBC returns AES-XCBC-MAC (RFC 3566), a tag of 16 bytes. A key of other than
// 16 bytes is an error.
func XCBC(key []byte) (hash.Hash, error) {
	if len(key) != aes.BlockSize {
		return nil, fmt.Errorf("mac: XCBC needs a key of %d bytes, found %d", aes.BlockSize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mac: XCBC: %w", err)
	}
	k1, k2, k3 := constant(block, 1), constant(block, 2), constant(block, 3)
	if block, err = aes.NewCipher(k1[:]); err != nil {
		return nil, fmt.Errorf("mac: XCBC: %w", err)
	}
	return &cbcMAC{block: block, whole: k2, padded: k3}, nil
}

// constant encrypts a block of one repeated byte (RFC 3566, section 4).
func constant(block cipher.Block, b byte) (k [aes.BlockSize]byte) {
	for i := range k {
		k[i] = b
	}
	block.Encrypt(k[:], k[:])
	return k
}

// double multiplies by x in GF(2^128) (RFC 4493, section 2.3), without a branch
// on the key-dependent bit that falls off.
func double(b [aes.BlockSize]byte) (d [aes.BlockSize]byte) {
	carry := b[0] >> 7
	for i := range d {
		d[i] = b[i] << 1
		if i+1 < len(b) {
			d[i] |= b[i+1] >> 7
		}
	}
	d[len(d)-1] ^= 0x87 * carry
	return d
}

func (m *cbcMAC) Size() int      { return aes.BlockSize }
func (m *cbcMAC) BlockSize() int { return aes.BlockSize }

func (m *cbcMAC) Reset() {
	clear(m.x[:])
	m.n = 0
}

// Write encrypts a full block only when a further byte follows it, since the
// last block is masked first.
func (m *cbcMAC) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if m.n == len(m.x) {
			m.block.Encrypt(m.x[:], m.x[:])
			m.n = 0
		}
		n := subtle.XORBytes(m.x[m.n:], m.x[m.n:], p)
		m.n += n
		p = p[n:]
	}
	return total, nil
}

func (m *cbcMAC) Sum(b []byte) []byte {
	mask := &m.whole
	m.last = m.x
	if m.n < len(m.x) {
		mask = &m.padded
		m.last[m.n] ^= 0x80
	}
	subtle.XORBytes(m.last[:], m.last[:], mask[:])
	m.block.Encrypt(m.last[:], m.last[:])
	return append(b, m.last[:]...)
}
