//go:build ipsecmb

package esp

// #include <intel-ipsec-mb.h>
//
// static void tapsecAESKey(IMB_MGR *m, const uint8_t *key, int length, uint8_t *seal, uint8_t *open) {
// 	switch (length) {
// 	case 16: IMB_AES_KEYEXP_128(m, key, seal, open); break;
// 	case 24: IMB_AES_KEYEXP_192(m, key, seal, open); break;
// 	case 32: IMB_AES_KEYEXP_256(m, key, seal, open); break;
// 	}
// }
//
// static int tapsecCBCOpen(IMB_MGR *m, const uint8_t *key, int length, uint8_t *dst, const uint8_t *src, uint64_t n,
// 		const uint8_t *iv) {
// 	IMB_JOB job = {0};
// 	job.dec_keys = key;
// 	job.key_len_in_bytes = length;
// 	job.src = src;
// 	job.dst = dst;
// 	job.msg_len_to_cipher_in_bytes = n;
// 	job.iv = iv;
// 	job.iv_len_in_bytes = 16;
// 	return IMB_SUBMIT_CIPHER_BURST_NOCHECK(m, &job, 1, IMB_CIPHER_CBC, IMB_DIR_DECRYPT, length);
// }
//
// #cgo noescape tapsecAESKey
// #cgo nocallback tapsecAESKey
// #cgo noescape tapsecCBCOpen
// #cgo nocallback tapsecCBCOpen
import "C"

import (
	"crypto/aes"
	"runtime"
	"sync"
	"unsafe"
)

// Ciphers says whose the ciphers of AES-GCM and AES-CBC are.
const Ciphers = "libipsec-mb"

const (
	roundKeys = 15 * aes.BlockSize // of the longest key, in bytes
	roundAt   = 16                 // their alignment

	worthACall = 192 // bytes from which a call of the library is faster than Go's
)

// managers are the library's states for jobs, each for one call at a time.
var managers = sync.OnceValue(func() chan *C.IMB_MGR {
	all := make(chan *C.IMB_MGR, runtime.NumCPU())
	for range cap(all) {
		m := C.alloc_mb_mgr(0)
		if m == nil {
			panic("esp: no memory for libipsec-mb")
		}
		C.init_mb_mgr_auto(m, nil)
		all <- m
	}
	return all
})

// mbCBC is AES-CBC that opens by Intel's libipsec-mb, which decrypts several blocks at once, one
// packet a call. A sealed block waits for the one before it, so Go's is as good there. Unsafe for
// concurrent use.
type mbCBC struct {
	cipherMode        // Go's
	expanded   []byte // expanded key
	length     C.int  // of the key in bytes
}

func newAESCBC(key []byte) (cipherMode, error) {
	mode, err := newCBC(aes.NewCipher, key)
	if err != nil {
		return nil, err
	}
	if err := initialize(); err != nil {
		return nil, err
	}
	m := <-managers()
	_, open := expand(m, key)
	managers() <- m
	return &mbCBC{cipherMode: mode, expanded: open, length: C.int(len(key))}, nil
}

// expand makes an AES key's round keys, for either direction.
func expand(m *C.IMB_MGR, key []byte) (seal, open []byte) {
	seal, open = aligned(roundKeys, roundAt), aligned(roundKeys, roundAt)
	C.tapsecAESKey(m, start(key), C.int(len(key)), start(seal), start(open))
	return seal, open
}

func (c *mbCBC) open(dst, iv, src []byte) {
	if len(src) < worthACall {
		c.cipherMode.open(dst, iv, src)
		return
	}
	m := <-managers()
	done := C.tapsecCBCOpen(m, start(c.expanded), c.length, start(dst), start(src), C.uint64_t(len(src)), start(iv))
	managers() <- m
	if done != 1 {
		panic("esp: libipsec-mb has not decrypted a packet")
	}
}

// aligned is memory of n bytes at an address that is a multiple of to; the heap does not move.
func aligned(n int, to uintptr) []byte {
	memory := make([]byte, n+int(to))
	return memory[-uintptr(unsafe.Pointer(&memory[0]))%to:][:n]
}
