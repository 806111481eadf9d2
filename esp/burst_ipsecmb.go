//go:build ipsecmb

package esp

// #include <string.h>
// #include <intel-ipsec-mb.h>
//
// enum { tapsecBurst = 16, tapsecLongest = 10240 }; // packets, and bytes of one
//
// // A keyed suite: AES-CBC, AES-CTR or NULL with an HMAC.
// typedef struct {
// 	uint8_t rounds[240] __attribute__((aligned(16)));
// 	uint8_t inner[64], outer[64]; // the HMAC's two states behind its key
// 	int32_t cipher, keyLength, hash, tagLength;
// } tapsecLane;
//
// // A packet, which begins with its SPI.
// typedef struct {
// 	uint8_t iv[16]; // of CTR the first counter block
// 	uint8_t tag[64];
// 	uint32_t lane; // its index
// 	uint32_t at, text, length, covered; // its offset, that of the ciphertext and its bytes; bytes under the ICV
// } tapsecJob;
//
// typedef struct {
// 	tapsecLane lanes[tapsecBurst]; // keys, and so only during a call
// 	tapsecJob jobs[tapsecBurst];
// 	uint8_t packets[tapsecBurst * tapsecLongest];
// } tapsecMemory;
//
// static void tapsecHMACKey(IMB_MGR *m, int hash, const uint8_t *pad, uint8_t *state) {
// 	switch (hash) {
// 	case IMB_AUTH_HMAC_SHA_1: IMB_SHA1_ONE_BLOCK(m, pad, state); break;
// 	case IMB_AUTH_HMAC_SHA_256: IMB_SHA256_ONE_BLOCK(m, pad, state); break;
// 	case IMB_AUTH_HMAC_SHA_384: IMB_SHA384_ONE_BLOCK(m, pad, state); break;
// 	case IMB_AUTH_HMAC_SHA_512: IMB_SHA512_ONE_BLOCK(m, pad, state); break;
// 	}
// }
//
// static void tapsecFill(IMB_JOB *to, tapsecMemory *b, tapsecJob *j) {
// 	const tapsecLane *lane = &b->lanes[j->lane];
// 	memset(to, 0, sizeof *to);
// 	to->cipher_mode = lane->cipher;
// 	to->cipher_direction = IMB_DIR_DECRYPT;
// 	to->hash_alg = lane->hash;
// 	to->chain_order = IMB_ORDER_HASH_CIPHER;
// 	to->enc_keys = to->dec_keys = lane->rounds;
// 	to->key_len_in_bytes = lane->keyLength;
// 	to->src = b->packets + j->at;
// 	to->dst = b->packets + j->text;
// 	to->cipher_start_src_offset_in_bytes = j->text - j->at;
// 	to->msg_len_to_cipher_in_bytes = j->length;
// 	to->msg_len_to_hash_in_bytes = j->covered;
// 	to->iv = j->iv;
// 	to->iv_len_in_bytes = sizeof j->iv;
// 	to->auth_tag_output = j->tag;
// 	to->auth_tag_output_len_in_bytes = lane->tagLength;
// 	to->u.HMAC._hashed_auth_key_xor_ipad = lane->inner;
// 	to->u.HMAC._hashed_auth_key_xor_opad = lane->outer;
// }
//
// // Computes the ICVs of n packets and decrypts them where they lie; returns how many it has done.
// static int tapsecTogether(IMB_MGR *m, tapsecMemory *b, int n) {
// 	IMB_JOB *jobs[tapsecBurst];
// 	if ((int)IMB_GET_NEXT_BURST(m, n, jobs) < n)
// 		return 0;
// 	for (int i = 0; i < n; i++)
// 		tapsecFill(jobs[i], b, &b->jobs[i]);
// 	int done = IMB_SUBMIT_BURST_NOCHECK(m, n, jobs);
// 	for (int more = 1; done < n && more > 0; done += more)
// 		more = IMB_FLUSH_BURST(m, n - done, jobs);
// 	return done;
// }
//
// #cgo noescape tapsecHMACKey
// #cgo nocallback tapsecHMACKey
// #cgo noescape tapsecTogether
// #cgo nocallback tapsecTogether
import "C"

import (
	"crypto/subtle"
	"encoding/binary"
	"unsafe"

	"tapsec/sa"
)

// Burst is how many packets can be opened together. More gain nothing: so many have a lane of
// the widest registers each.
const Burst = C.tapsecBurst

// burst is packets for one call of the library, which computes their ICVs side by side.
type burst struct {
	entered [Burst]entered
	lanes   int             // in memory
	latest  *lane           // the last of these
	n, next int             // packets, and the one that Open is to ask for
	memory  *C.tapsecMemory // so large that it begins at a page, as aligned as the library asks for
}

// entered is a packet, and where the result will be; job is nil if Open must open it.
type entered struct {
	in     *Inbound
	lane   *lane
	packet []byte
	number uint64
	job    *C.tapsecJob
}

func (b *burst) enter(in *Inbound, worker int, packet []byte, number uint64) {
	c, ok := in.aead(worker).(*composite)
	if _, _, whole := in.bounds(packet); !ok || c.lane == nil || !whole || len(packet) > C.tapsecLongest || b.n == Burst {
		return
	}
	b.entered[b.n] = entered{in: in, lane: c.lane, packet: packet, number: number}
	b.n++
}

// run gives the library the packets of each hash of which there are enough.
func (b *burst) run() {
	var of [sa.GMAC + 1]int
	for i := range b.n {
		of[b.entered[i].lane.hash]++
	}
	jobs, used := 0, 0
	for i := range b.n {
		e := &b.entered[i]
		if of[e.lane.hash] >= e.lane.enough {
			used += b.load(e, jobs, used)
			jobs++
		}
	}
	if jobs == 0 {
		return
	}
	m := <-managers()
	done := C.tapsecTogether(m, b.memory, C.int(jobs))
	managers() <- m
	clear(b.memory.lanes[:b.lanes])
	b.lanes, b.latest = 0, nil
	if int(done) != jobs {
		panic("esp: libipsec-mb has not opened all packets")
	}
}

// load makes a packet a job, in memory from at, and returns the bytes that it takes there.
func (b *burst) load(e *entered, job, at int) int {
	if b.memory == nil {
		b.memory = new(C.tapsecMemory)
	}
	text, covered, _ := e.in.bounds(e.packet)
	to := unsafe.Slice((*byte)(&b.memory.packets[at]), len(e.packet))
	copy(to, e.packet)
	j := &b.memory.jobs[job]
	j.lane = b.laneOf(e.lane)
	j.at, j.text, j.length = C.uint32_t(at), C.uint32_t(at+text), C.uint32_t(covered-text)
	e.lane.setIV(j, to[HeaderLen:text])
	if e.in.esn {
		binary.BigEndian.PutUint32(to[covered:], uint32(e.number>>32)) // RFC 4303 section 2.2.1
		covered += 4
	}
	j.covered = C.uint32_t(covered)
	e.job = j
	return len(to)
}

// laneOf is the index of a lane in memory. Most packets have that of the packet before.
func (b *burst) laneOf(l *lane) C.uint32_t {
	if b.latest != l {
		b.memory.lanes[b.lanes] = l.key
		b.latest, b.lanes = l, b.lanes+1
	}
	return C.uint32_t(b.lanes - 1)
}

// take returns what was found of a packet, if it was tried: its plaintext, if the ICV is good.
func (b *burst) take(in *Inbound, packet []byte, number uint64) (plain []byte, tried, good bool) {
	for i := b.next; i < b.n; i++ {
		e := &b.entered[i]
		if unsafe.SliceData(e.packet) != unsafe.SliceData(packet) || len(e.packet) != len(packet) {
			continue
		}
		b.next = i + 1
		if e.job == nil || e.in != in || e.number != number {
			return nil, false, false
		}
		_, end, _ := in.bounds(packet)
		good = subtle.ConstantTimeCompare(bytesOf(&e.job.tag)[:in.icvLen], packet[end:]) == 1
		return unsafe.Slice((*byte)(&b.memory.packets[e.job.text]), int(e.job.length)), true, good
	}
	return nil, false, false
}

func (b *burst) forget() { b.n, b.next = 0, 0 }

// lane is a suite as the library's jobs have it. It is only read.
type lane struct {
	key    C.tapsecLane
	salt   []byte // of AES-CTR
	hash   sa.Integrity
	enough int // packets of that hash from which one call for all is faster than one for each
}

// hashes are those whose ICVs the library computes side by side: its name, its bytes of input at
// a time and of output, and from how many packets on.
var hashes = map[sa.Integrity]struct{ name, block, length, enough int }{
	sa.HMACSHA1:   {C.IMB_AUTH_HMAC_SHA_1, C.IMB_SHA1_BLOCK_SIZE, C.IMB_SHA1_DIGEST_SIZE_IN_BYTES, 4},
	sa.HMACSHA256: {C.IMB_AUTH_HMAC_SHA_256, C.IMB_SHA_256_BLOCK_SIZE, C.IMB_SHA256_DIGEST_SIZE_IN_BYTES, 8},
	sa.HMACSHA384: {C.IMB_AUTH_HMAC_SHA_384, C.IMB_SHA_384_BLOCK_SIZE, C.IMB_SHA384_DIGEST_SIZE_IN_BYTES, 2},
	sa.HMACSHA512: {C.IMB_AUTH_HMAC_SHA_512, C.IMB_SHA_512_BLOCK_SIZE, C.IMB_SHA512_DIGEST_SIZE_IN_BYTES, 2},
}

// modes are the ciphers of a lane, by the library's names.
var modes = map[sa.Cipher]C.int32_t{
	sa.Null: C.IMB_CIPHER_NULL, sa.AESCBC: C.IMB_CIPHER_CBC, sa.AESCTR: C.IMB_CIPHER_CNTR,
}

// newLane keys a suite for bursts; it is nil if the library has no lanes for it.
func newLane(s sa.Suite, enc, auth sa.Key) *lane {
	hash, hashed := hashes[s.Integrity]
	mode, ciphered := modes[s.Cipher]
	if !hashed || !ciphered || initialize() != nil {
		return nil
	}
	k := enc.Bytes()
	l := &lane{hash: s.Integrity, enough: hash.enough, salt: k[s.KeyLen:]}
	l.key.cipher, l.key.keyLength = mode, C.int32_t(s.KeyLen)
	l.key.hash, l.key.tagLength = C.int32_t(hash.name), C.int32_t(hash.length)
	m := <-managers()
	defer func() { managers() <- m }()
	if s.Cipher != sa.Null {
		seal, open := expand(m, k[:s.KeyLen])
		copy(bytesOf(&l.key.rounds), open)
		if s.Cipher == sa.AESCTR { // which opens by sealing
			copy(bytesOf(&l.key.rounds), seal)
		}
	}
	pad := make([]byte, hash.block)
	for state, with := range map[*[64]C.uint8_t]byte{&l.key.inner: 0x36, &l.key.outer: 0x5c} { // RFC 2104 section 2
		clear(pad[copy(pad, auth.Bytes()):])
		for i := range pad {
			pad[i] ^= with
		}
		C.tapsecHMACKey(m, C.int(hash.name), start(pad), &state[0])
	}
	clear(pad)
	return l
}

// setIV gives a job its IV, which for AES-CTR is the first counter block (RFC 3686 section 4).
func (l *lane) setIV(j *C.tapsecJob, iv []byte) {
	to := bytesOf(&j.iv)
	if l.key.cipher != C.IMB_CIPHER_CNTR {
		copy(to, iv)
		return
	}
	n := copy(to, l.salt)
	n += copy(to[n:], iv)
	binary.BigEndian.PutUint32(to[n:], 1)
}

// bytesOf is an array of C's.
func bytesOf[A [16]C.uint8_t | [64]C.uint8_t | [240]C.uint8_t](a *A) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(a)), len(*a))
}
