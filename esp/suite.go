package esp

import (
	"crypto/cipher"
	"crypto/des"
	"fmt"
	"hash"

	"tapsec/internal/mac"
	"tapsec/sa"
)

// newAEAD keys a suite: the one place where ESP looks at which algorithm it is.
func newAEAD(s sa.Suite, enc, auth sa.Key) (cipher.AEAD, error) {
	k := enc.Bytes()
	if len(k) != s.EncryptionKeyLen() {
		return nil, fmt.Errorf("%s needs an encryption key of %d bytes, found %d", s.Name, s.EncryptionKeyLen(), len(k))
	}
	key, salt := k[:s.KeyLen], k[s.KeyLen:]
	switch s.Cipher {
	case sa.AESGCM:
		return newGCM(key, salt, s.ICVLen)
	case sa.AESCCM:
		return newCCM(key, salt, s.ICVLen)
	case sa.ChaCha20Poly1305:
		return newChaCha20Poly1305(key, salt)
	case sa.NullGMAC:
		return newGMAC(key, salt)
	}
	mode, err := newMode(s, key, salt)
	if err != nil {
		return nil, err
	}
	var m hash.Hash
	if s.Integrity != sa.NoIntegrity {
		if m, err = mac.New(s, auth); err != nil {
			return nil, err
		}
	}
	c := newComposite(mode, m, s.ICVLen)
	c.lane = newLane(s, enc, auth)
	return c, nil
}

// newMode keys the cipher of a suite with separate integrity or none.
func newMode(s sa.Suite, key, salt []byte) (cipherMode, error) {
	switch s.Cipher {
	case sa.Null:
		return null{}, nil
	case sa.AESCBC:
		return newAESCBC(key)
	case sa.TripleDESCBC:
		return newCBC(des.NewTripleDESCipher, key)
	case sa.DESCBC:
		return newCBC(des.NewCipher, key)
	case sa.AESCTR:
		return newCTR(key, salt)
	}
	return nil, fmt.Errorf("%s has no cipher of ESP", s.Name)
}
