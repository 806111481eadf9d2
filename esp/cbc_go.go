//go:build !ipsecmb

package esp

import "crypto/aes"

// Ciphers says whose the ciphers of AES-GCM and AES-CBC are.
const Ciphers = "Go"

func newAESCBC(key []byte) (cipherMode, error) { return newCBC(aes.NewCipher, key) }
