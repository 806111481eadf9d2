//go:build ipsecmb

package esp

// #cgo LDFLAGS: -lIPSec_MB
// #cgo noescape tapsecGCMSeal
// #cgo nocallback tapsecGCMSeal
// #cgo noescape tapsecGCMOpen
// #cgo nocallback tapsecGCMOpen
// #include <intel-ipsec-mb.h>
//
// static IMB_MGR *manager; // after tapsecGCMInit it is only read
//
// static int tapsecGCMInit(void) {
// 	manager = alloc_mb_mgr(0);
// 	if (manager == NULL)
// 		return -1;
// 	init_mb_mgr_auto(manager, NULL);
// 	return imb_get_errno(manager);
// }
//
// static void tapsecGCMKey(uint8_t *to, const uint8_t *key, int length) {
// 	struct gcm_key_data *expanded = (struct gcm_key_data *)to;
// 	switch (length) {
// 	case 16: IMB_AES128_GCM_PRE(manager, key, expanded); break;
// 	case 24: IMB_AES192_GCM_PRE(manager, key, expanded); break;
// 	case 32: IMB_AES256_GCM_PRE(manager, key, expanded); break;
// 	}
// }
//
// static void tapsecGCMSeal(const uint8_t *key, int length, uint8_t *dst, const uint8_t *src, uint64_t n,
// 		const uint8_t *nonce, const uint8_t *aad, uint64_t aadLength, uint8_t *tag, uint64_t tagLength) {
// 	const struct gcm_key_data *k = (const struct gcm_key_data *)key;
// 	struct gcm_context_data c;
// 	switch (length) {
// 	case 16: IMB_AES128_GCM_ENC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	case 24: IMB_AES192_GCM_ENC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	case 32: IMB_AES256_GCM_ENC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	}
// }
//
// static void tapsecGCMOpen(const uint8_t *key, int length, uint8_t *dst, const uint8_t *src, uint64_t n,
// 		const uint8_t *nonce, const uint8_t *aad, uint64_t aadLength, uint8_t *tag, uint64_t tagLength) {
// 	const struct gcm_key_data *k = (const struct gcm_key_data *)key;
// 	struct gcm_context_data c;
// 	switch (length) {
// 	case 16: IMB_AES128_GCM_DEC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	case 24: IMB_AES192_GCM_DEC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	case 32: IMB_AES256_GCM_DEC(manager, k, &c, dst, src, n, nonce, aad, aadLength, tag, tagLength); break;
// 	}
// }
import "C"

import (
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"sync"
	"unsafe"
)

const (
	bareNonce = 12
	keyAlign  = 64 // of the library's expanded keys, in bytes
)

// initialize chooses the code for this processor.
var initialize = sync.OnceValue(func() error {
	if code := C.tapsecGCMInit(); code != 0 {
		return fmt.Errorf("esp: libipsec-mb cannot be used on this machine (its error %d)", code)
	}
	return nil
})

// bareGCM is GCM of Intel's libipsec-mb, one packet a call. Unsafe for
// concurrent use.
type bareGCM struct {
	key    []byte // expanded
	length C.int  // of the key in bytes
	tag    [16]byte
	size   int // of the tag
}

// newBareGCM returns GCM for nonces of 12 bytes and a tag of 8, 12 or 16.
func newBareGCM(key []byte, tag int) (cipher.AEAD, error) {
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("esp: AES key of %d bytes, want 16, 24 or 32", n)
	}
	if err := initialize(); err != nil {
		return nil, err
	}
	g := &bareGCM{key: aligned(int(unsafe.Sizeof(C.struct_gcm_key_data{})), keyAlign), length: C.int(len(key)), size: tag}
	C.tapsecGCMKey(start(g.key), start(key), g.length)
	return g, nil
}

func (g *bareGCM) NonceSize() int { return bareNonce }
func (g *bareGCM) Overhead() int  { return g.size }

func (g *bareGCM) Seal(dst, nonce, plaintext, aad []byte) []byte {
	checkNonce(nonce)
	n := len(plaintext)
	whole, sealed := extend(dst, n+g.size)
	C.tapsecGCMSeal(start(g.key), g.length, start(sealed), start(plaintext), C.uint64_t(n),
		start(nonce), start(aad), C.uint64_t(len(aad)), start(g.tag[:]), C.uint64_t(g.size))
	copy(sealed[n:], g.tag[:])
	return whole
}

// Open decrypts while it authenticates, and wipes the result if the tag is wrong.
func (g *bareGCM) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	checkNonce(nonce)
	n := len(sealed) - g.size
	if n < 0 {
		return nil, errOpen
	}
	whole, plaintext := extend(dst, n)
	C.tapsecGCMOpen(start(g.key), g.length, start(plaintext), start(sealed), C.uint64_t(n),
		start(nonce), start(aad), C.uint64_t(len(aad)), start(g.tag[:]), C.uint64_t(g.size))
	if subtle.ConstantTimeCompare(g.tag[:g.size], sealed[n:]) != 1 {
		clear(plaintext)
		return nil, errOpen
	}
	return whole, nil
}

func checkNonce(nonce []byte) {
	if len(nonce) != bareNonce {
		panic("esp: GCM nonce of wrong length")
	}
}

// start is a pointer to b for C.
func start(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))) }
