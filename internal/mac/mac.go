// Package mac holds the integrity transforms that ESP (RFC 4303) and AH
// (RFC 4302) share, each a hash.Hash over the full-length tag: HMAC with MD5,
// SHA-1 and SHA-2 (RFC 2104, 2403, 2404, 4868), AES-CMAC (RFC 4493),
// AES-XCBC-MAC (RFC 3566) and AES-GMAC (RFC 4543).
//
// The caller truncates the tag to its ICV length and compares it in constant
// time. The package knows no packet: which bytes enter, and in which order, is
// the protocol's business.
//
// A transform is unsafe for concurrent use: have one per SA and worker. All
// that depends on the key alone is computed at construction; after that Reset,
// Write and Sum (into spare capacity) do not allocate.
package mac

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
)

// HMACMD5 returns HMAC-MD5 (RFC 2403), a tag of 16 bytes. An empty key is an
// error.
func HMACMD5(key []byte) (hash.Hash, error) { return newHMAC(md5.New, key) }

// HMACSHA1 returns HMAC-SHA1 (RFC 2404), a tag of 20 bytes. An empty key is an
// error.
func HMACSHA1(key []byte) (hash.Hash, error) { return newHMAC(sha1.New, key) }

// HMACSHA256 returns HMAC-SHA-256 (RFC 4868), a tag of 32 bytes. An empty key
// is an error.
func HMACSHA256(key []byte) (hash.Hash, error) { return newHMAC(sha256.New, key) }

// HMACSHA384 returns HMAC-SHA-384 (RFC 4868), a tag of 48 bytes. An empty key
// is an error.
func HMACSHA384(key []byte) (hash.Hash, error) { return newHMAC(sha512.New384, key) }

// HMACSHA512 returns HMAC-SHA-512 (RFC 4868), a tag of 64 bytes. An empty key
// is an error.
func HMACSHA512(key []byte) (hash.Hash, error) { return newHMAC(sha512.New, key) }

// newHMAC resets the new HMAC once: the first Reset makes the standard library keep the two
// pad states, so that no packet pays for them.
func newHMAC(h func() hash.Hash, key []byte) (hash.Hash, error) {
	if len(key) == 0 {
		return nil, errors.New("mac: HMAC needs a key, found an empty one")
	}
	m := hmac.New(h, key)
	m.Reset()
	return m, nil
}
