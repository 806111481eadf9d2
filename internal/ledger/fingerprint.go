package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"tapsec/sa"
)

// fingerprint names an SA for as long as its keys live: 128 bits of an HMAC-SHA-256 under
// the keys, in hexadecimal. It tells nothing about the keys but whether they are the same.
// Mode, ESN, window and name are not part of it: a configuration may change them while the
// key stays.
func fingerprint(s *sa.SA) name {
	return digest(keys(s), "tapsec SA 2", s.Protocol.String(), sa.SPI(s.SPI).String(), s.Dst.String(), s.Src.String(), s.Suite.Name)
}

// counterFingerprint is that of an outbound SA. GCM, CCM, CTR, GMAC and ChaCha20 break if a
// nonce repeats, and make it from the number. For them the key that is used with the nonce
// alone names the counter, whatever SPI, addresses, integrity key or ICV length go with it.
func counterFingerprint(s *sa.SA) name {
	if !s.Suite.CounterMode() {
		return fingerprint(s)
	}
	return digest(s.NonceKey().Bytes(), "tapsec nonces 2")
}

// keys joins both keys so that no byte can move from one to the other.
func keys(s *sa.SA) []byte {
	encryption, integrity := s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()
	return slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(encryption))), encryption, integrity)
}

// digest is the beginning of the HMAC of lines.
func digest(key []byte, lines ...string) (id name) {
	text := make([]byte, 0, 160)
	for _, line := range lines {
		text = append(append(text, line...), '\n')
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	copy(id[:], mac.Sum(text[:0]))
	return id
}
