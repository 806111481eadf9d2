package esp

import (
	"crypto/cipher"
	"fmt"
)

// cbc is a block cipher in CBC mode. Encrypter and decrypter are made once and given each
// packet's IV. Unsafe for concurrent use.
type cbc struct {
	enc, dec chain
}

// chain is cipher.BlockMode with the SetIV of the standard library's CBC.
type chain interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

// newCBC returns CBC over the cipher that newCipher makes of the key: AES
// (RFC 3602), 3DES or DES (RFC 2451, 2405).
func newCBC(newCipher func(key []byte) (cipher.Block, error), key []byte) (cipherMode, error) {
	block, err := newCipher(key)
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	iv := make([]byte, block.BlockSize())
	return &cbc{
		enc: cipher.NewCBCEncrypter(block, iv).(chain),
		dec: cipher.NewCBCDecrypter(block, iv).(chain),
	}, nil
}

func (c *cbc) ivSize() int    { return c.enc.BlockSize() }
func (c *cbc) blockSize() int { return c.enc.BlockSize() }

func (c *cbc) seal(dst, iv, src []byte) {
	c.enc.SetIV(iv)
	c.enc.CryptBlocks(dst, src)
}

func (c *cbc) open(dst, iv, src []byte) {
	c.dec.SetIV(iv)
	c.dec.CryptBlocks(dst, src)
}
