package mac

import (
	"fmt"
	"hash"

	"tapsec/sa"
)

// New keys the integrity algorithm of a suite, that of AH or of an ESP suite
// with separate integrity. Errors name the suite and lengths, never the key.
func New(s sa.Suite, key sa.Key) (hash.Hash, error) {
	k := key.Bytes()
	if len(k) != s.IntegrityKeyLen() {
		return nil, fmt.Errorf("%s needs an integrity key of %d bytes, found %d", s.Name, s.IntegrityKeyLen(), len(k))
	}
	switch s.Integrity {
	case sa.HMACMD5:
		return HMACMD5(k)
	case sa.HMACSHA1:
		return HMACSHA1(k)
	case sa.HMACSHA256:
		return HMACSHA256(k)
	case sa.HMACSHA384:
		return HMACSHA384(k)
	case sa.HMACSHA512:
		return HMACSHA512(k)
	case sa.AESXCBC:
		return XCBC(k)
	case sa.AESCMAC:
		return CMAC(k)
	case sa.GMAC:
		return NewGMAC(k[:s.AuthLen], k[s.AuthLen:])
	}
	return nil, fmt.Errorf("%s has no integrity algorithm of its own", s.Name)
}
