package esp

import (
	"crypto/cipher"
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
