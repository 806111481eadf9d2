//go:build ipsecmb

package esp

import (
	"bytes"
	"crypto/aes"
	"math/rand/v2"
	"sync"
	"testing"
)

// The library opens what Go's CBC opens, for each length of key and packet, in place and not, by
// more goroutines than it has states.
func TestCBCIsGo(t *testing.T) {
	var all sync.WaitGroup
	for seed := range byte(8) {
		all.Go(func() {
			random := rand.NewChaCha8([32]byte{seed})
			for _, length := range []int{16, 24, 32} {
				key, iv := make([]byte, length), make([]byte, aes.BlockSize)
				random.Read(key)
				mine, err := newAESCBC(key)
				if err != nil {
					t.Error(err)
					return
				}
				plain, err := newCBC(aes.NewCipher, key)
				if err != nil {
					t.Error(err)
					return
				}
				for n := 0; n <= 3000; n += aes.BlockSize {
					sealed := make([]byte, n)
					random.Read(iv)
					random.Read(sealed)
					want, got := make([]byte, n), make([]byte, n)
					plain.open(want, iv, sealed)
					mine.open(got, iv, sealed)
					mine.open(sealed, iv, sealed)
					if !bytes.Equal(got, want) || !bytes.Equal(sealed, want) {
						t.Errorf("key of %d, packet of %d bytes: another plaintext", length, n)
						return
					}
				}
			}
		})
	}
	all.Wait()
}
