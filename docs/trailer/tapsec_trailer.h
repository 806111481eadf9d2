/* The status trailer of tapsec, version 1 (docs/trailer.md), for those who read it in C.
 * One header, no library: C99, no allocation, nothing in the frame is trusted. */
#ifndef TAPSEC_TRAILER_H
#define TAPSEC_TRAILER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TAPSEC_BASE_LEN 44
#define TAPSEC_RECORD_LEN 40
#define TAPSEC_MAX_RECORDS 4

#define TAPSEC_SA_DELETE_REQ 0x1u
#define TAPSEC_CRYPTO_DONE 0x2u
#define TAPSEC_NEXT_CRYPTO_DONE 0x4u
#define TAPSEC_STATUS(word) ((uint16_t)((word) >> 16))

/* BEGIN NAMES */
enum tapsec_reason {
	TAPSEC_REASON_NOT_IP = 1, /* the EtherType is neither IPv4 nor IPv6 */
	TAPSEC_REASON_BAD_IP_HEADER = 2, /* the IP header contradicts itself or the EtherType */
	TAPSEC_REASON_NO_IPSEC = 3, /* the packet carries no AH or ESP that can be reached */
	TAPSEC_REASON_NO_SA = 4, /* no offloaded SA has this SPI */
	TAPSEC_REASON_ADDRESS_MISMATCH = 5, /* an SA has this SPI, but another destination or source */
	TAPSEC_REASON_ENCAP_MISMATCH = 6, /* the SA with this SPI is UDP-encapsulated, the frame is not */
	TAPSEC_REASON_SA_DELETED = 7, /* the SA with this SPI has been deleted */
	TAPSEC_REASON_SPI_OUTSIDE = 8, /* the packet ends before its SPI does */
	TAPSEC_REASON_OFFLOAD_INACTIVE = 9, /* receive offload is not active */
	TAPSEC_REASON_PROTOCOL_OFF = 10, /* offload of this portion's protocol is switched off */
	TAPSEC_REASON_FRAGMENT = 11, /* the packet that carries the IPsec header is a fragment */
	TAPSEC_REASON_IPV4_OPTIONS = 12, /* the profile takes no IPv4 options */
	TAPSEC_REASON_IPV6_EXTENSION_HEADERS = 13, /* the profile takes no IPv6 extension headers */
	TAPSEC_REASON_ROUTING_HEADER = 14, /* a routing header has segments left, or is of a type that AH cannot predict */
	TAPSEC_REASON_JUMBOGRAM = 15, /* the IPv6 payload length is 0 (jumbogram) */
	TAPSEC_REASON_NO_AH_ESP = 16, /* the profile does not take AH and ESP on the same portion */
	TAPSEC_REASON_IKE = 18, /* UDP 4500 carries an IKE message (non-ESP marker) */
	TAPSEC_REASON_KEEP_ALIVE = 19, /* UDP 4500 carries a NAT keep-alive */
	TAPSEC_REASON_UDP_TOO_SHORT = 20, /* UDP 4500 carries fewer bytes than an ESP header */
	TAPSEC_REASON_UDP_NO_SA = 21, /* no offloaded SA with this SPI is encapsulated in UDP */
	TAPSEC_REASON_NO_TUNNEL_TRANSPORT = 22, /* the profile does not take a transport portion inside a tunnel */
	TAPSEC_REASON_INNER_TUNNEL_SA = 23, /* inside the tunnel lies a second tunnel, which is left to the transport */
	TAPSEC_REASON_ENCAP_TWICE = 24, /* UDP-encapsulated IPsec inside a UDP-encapsulated tunnel is not supported */
	TAPSEC_REASON_DUMMY = 25, /* the tunnel carries a dummy packet (next header 59) */
	TAPSEC_REASON_INNER_NOT_IP = 26, /* the tunnel's payload is no IP packet of the kind announced */
	TAPSEC_REASON_INNER_LENGTH = 27, /* the packet inside the tunnel is longer than the tunnel's payload */
	TAPSEC_REASON_NO_FAMILY = 28, /* the profile does not take this IP version */
	TAPSEC_REASON_NOT_TRIED = 29, /* the header in front of it failed, so it was not tried */
	TAPSEC_REASON_TOO_LONG = 30, /* the packet reaches beyond the 65535 bytes that offsets can count */
	TAPSEC_REASON_VERIFIED = 32, /* every IPsec portion checked is good */
	TAPSEC_REASON_AH_ICV = 33, /* the AH ICV is wrong */
	TAPSEC_REASON_ESP_ICV = 34, /* the ESP ICV is wrong */
	TAPSEC_REASON_PROTOCOL_MISMATCH = 35, /* the SA is for the other IPsec protocol than the one in the frame */
	TAPSEC_REASON_BUNDLE_MISMATCH = 36, /* the frame lacks the SA's bundle partner, or carries another one */
	TAPSEC_REASON_IP_LENGTH = 37, /* the IP length reaches beyond what was received */
	TAPSEC_REASON_UDP_LENGTH = 38, /* the UDP length reaches beyond the IP payload */
	TAPSEC_REASON_ESP_LENGTH = 39, /* the ESP payload is too short, or no multiple of the block */
	TAPSEC_REASON_AH_LENGTH = 40, /* the AH length does not fit the SA's ICV or the packet */
	TAPSEC_REASON_PAD_LENGTH = 41, /* the ESP pad length is larger than the payload */
	TAPSEC_REASON_OPTION_SYNTAX = 42, /* an option that AH must read does not parse */
	TAPSEC_REASON_PAD_BYTES = 43, /* the ESP pad bytes are not 1, 2, 3 ... */
};
enum tapsec_status {
	TAPSEC_CRYPTO_SUCCESS = 0,
	TAPSEC_CRYPTO_GENERIC_ERROR = 1,
	TAPSEC_CRYPTO_TRANSPORT_AH_AUTH_FAILED = 2,
	TAPSEC_CRYPTO_TRANSPORT_ESP_AUTH_FAILED = 3,
	TAPSEC_CRYPTO_TUNNEL_AH_AUTH_FAILED = 4,
	TAPSEC_CRYPTO_TUNNEL_ESP_AUTH_FAILED = 5,
	TAPSEC_CRYPTO_INVALID_PACKET_SYNTAX = 6,
	TAPSEC_CRYPTO_INVALID_PROTOCOL = 7,
};
/* END NAMES */

struct tapsec_record {
	uint8_t portion;  /* 1 tunnel, 2 transport, 0 not known */
	uint8_t protocol; /* 50 ESP, 51 AH */
	uint32_t spi;
	uint64_t number; /* sequence number, with ESN all 64 bits */
	uint32_t handle;
	uint8_t state; /* 1 ICV valid, 2 failed at or before it, 3 failed behind it, 4 not processed */
	uint8_t status;
	uint16_t reason;
	uint16_t ip, ipsec, payload, payload_len; /* offsets in the frame, and a length */
	uint8_t iv_len, pad_len, icv_len, next_header;
	uint8_t delete_sa;
};

struct tapsec_trailer {
	uint32_t word;
	uint16_t reason;
	uint8_t form; /* 0 in place, 1 decap */
	uint8_t removed;
	uint8_t records, omitted;
	uint16_t queue;
	uint32_t wire_len;
	uint64_t ordinal;
	int64_t received; /* nanoseconds since 1970, UTC */
	struct tapsec_record record[TAPSEC_MAX_RECORDS];
};

static inline uint16_t tapsec_u16(const uint8_t *b) { return (uint16_t)(b[0] | b[1] << 8); }
static inline uint32_t tapsec_u32(const uint8_t *b) { return tapsec_u16(b) | (uint32_t)tapsec_u16(b + 2) << 16; }
static inline uint64_t tapsec_u64(const uint8_t *b) { return tapsec_u32(b) | (uint64_t)tapsec_u32(b + 4) << 32; }

/* tapsec_crc32c is the Castagnoli CRC. */
static inline uint32_t tapsec_crc32c(const uint8_t *b, size_t n) {
	uint32_t c = 0xffffffffu;
	while (n--) {
		c ^= *b++;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
	}
	return ~c;
}

/* tapsec_verified tells whether that many portions, 1 or 2, were checked and are all good. A
 * status of 0 alone says nothing. */
static inline int tapsec_verified(uint32_t word, int portions) {
	uint32_t want = portions == 2 ? TAPSEC_CRYPTO_DONE | TAPSEC_NEXT_CRYPTO_DONE : TAPSEC_CRYPTO_DONE;
	return (portions == 1 || portions == 2) && (word & want) == want && TAPSEC_STATUS(word) == 0;
}

static inline void tapsec_parse_record(const uint8_t *b, struct tapsec_record *r) {
	r->portion = b[2];
	r->protocol = b[3];
	r->spi = tapsec_u32(b + 4);
	r->number = tapsec_u64(b + 8);
	r->handle = tapsec_u32(b + 16);
	r->state = b[20];
	r->status = b[21];
	r->reason = tapsec_u16(b + 22);
	r->ip = tapsec_u16(b + 24);
	r->ipsec = tapsec_u16(b + 26);
	r->payload = tapsec_u16(b + 28);
	r->payload_len = tapsec_u16(b + 30);
	r->iv_len = b[32];
	r->pad_len = b[33];
	r->icv_len = b[34];
	r->next_header = b[35];
	r->delete_sa = b[36] & 1;
}

/* tapsec_split takes the trailer off a delivered frame of n bytes. It returns the length of
 * the frame in front of it, padding included; -1 where there is no trailer of version 1, and
 * -2 where there is a damaged one. t is whole only where the length is not negative. */
static inline long tapsec_split(const uint8_t *frame, size_t n, struct tapsec_trailer *t) {
	memset(t, 0, sizeof *t);
	if (n < TAPSEC_BASE_LEN)
		return -1;
	const uint8_t *b = frame + n - TAPSEC_BASE_LEN;
	if (memcmp(b + 40, "TSEC", 4) != 0 || b[34] != 1)
		return -1;
	size_t len = tapsec_u16(b + 32);
	if (len < TAPSEC_BASE_LEN || len > n)
		return -2;
	const uint8_t *at = frame + n - len;
	if (tapsec_crc32c(at, len - 8) != tapsec_u32(b + 36))
		return -2;
	t->word = tapsec_u32(b);
	t->reason = tapsec_u16(b + 4);
	t->form = b[6];
	t->removed = b[7];
	t->omitted = b[9];
	t->queue = tapsec_u16(b + 10);
	t->wire_len = tapsec_u32(b + 12);
	t->ordinal = tapsec_u64(b + 16);
	t->received = (int64_t)tapsec_u64(b + 24);
	while (at < b) {
		if (b - at < 2 || at[1] < 2 || at[1] > b - at)
			return -2;
		if (at[0] == 1) {
			if (at[1] != TAPSEC_RECORD_LEN || t->records == TAPSEC_MAX_RECORDS)
				return -2;
			tapsec_parse_record(at, &t->record[t->records++]);
		}
		at += at[1];
	}
	if (t->records != b[8] || (t->form == 0 && t->wire_len > n - len))
		return -2;
	return (long)(n - len);
}

#endif
