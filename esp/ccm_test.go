package esp

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// The tag over additional data of more than one block, against RFC 3610 section 2.2
// written down block by block. ESP's is shorter, and its vectors do not reach there.
func TestCCMAdditionalData(t *testing.T) {
	key, nonce := bytes.Repeat([]byte{7}, 16), []byte("salt and IV")
	plaintext := []byte("more than one block of plaintext")
	for _, n := range []int{0, 1, 13, 14, 15, 16, 30, 31, 255, 256, 1000} {
		aad := bytes.Repeat([]byte{0xa5}, n)
		c, err := newCCM(key, nonce[:3], 16)
		if err != nil {
			t.Fatal(err)
		}
		sealed := c.Seal(nil, nonce[3:], plaintext, aad)
		if got, want := sealed[len(plaintext):], slowCCM(key, nonce, plaintext, aad); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: tag %x, want %x", n, got, want)
		}
	}
	c, err := newCCM(key, nonce[:3], 16)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if got := fmt.Sprint(recover()); got != "esp: CCM additional data too long" {
			t.Error(got)
		}
	}()
	c.Seal(nil, nonce[3:], plaintext, make([]byte, ccmMaxAADLen))
}

// slowCCM is the 16-byte tag of CCM with counters of 4 bytes.
func slowCCM(key, nonce, plaintext, aad []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	flags := byte(7<<3 | 3)
	input := binary.BigEndian.AppendUint32(append([]byte{flags}, nonce...), uint32(len(plaintext)))
	pad := func() { input = append(input, make([]byte, -len(input)&15)...) }
	if len(aad) > 0 {
		input[0] |= 0x40
		input = append(binary.BigEndian.AppendUint16(input, uint16(len(aad))), aad...)
		pad()
	}
	input = append(input, plaintext...)
	pad()
	x, hidden := make([]byte, 16), make([]byte, 16)
	for b := range slices.Chunk(input, 16) {
		for i := range x {
			x[i] ^= b[i]
		}
		block.Encrypt(x, x)
	}
	block.Encrypt(hidden, append(append([]byte{3}, nonce...), 0, 0, 0, 0))
	for i := range x {
		x[i] ^= hidden[i]
	}
	return x
}
