/* TLS records of a connection whose handshake is over, for who goes on with the socket that
 * nbdd_take_tls_socket gave up: bytes in, bytes out, in place, in memory of the caller.
 *
 * Sources: RFC 8446 (TLS 1.3) 5.1-5.5, RFC 5246 (TLS 1.2) 6.2, RFC 5288 (AES-GCM),
 * RFC 7905 (CHACHA20-POLY1305).  Nothing is allocated after record_way_init. */
#pragma once

#include <gnutls/crypto.h>
#include <nbdd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"

#define RECORD_PLAIN_MAX	16384u		/* bytes of data in one record */
#define RECORD_HEADER		5u
#define RECORD_PREFIX_MAX	(RECORD_HEADER + 8u)	/* with the nonce of TLS 1.2 */
#define RECORD_SUFFIX_MAX	(1u + 16u)		/* type of TLS 1.3, tag */
/* RFC 8446, 5.2.  In TLS 1.2 these ciphers need less than the 2048 that RFC 5246 allows. */
#define RECORD_BODY_MAX		(RECORD_PLAIN_MAX + 256u)
#define RECORD_MAX		(RECORD_HEADER + RECORD_BODY_MAX)

/* RFC 8446, 5.5: at most 2^24.5 records of full size by one key of AES-GCM. */
#define RECORD_GCM_LIMIT	UINT64_C(23726566)

/* RFC 8446, B.1 */
enum record_type {
	RECORD_CHANGE_CIPHER_SPEC = 20,
	RECORD_ALERT = 21,
	RECORD_HANDSHAKE = 22,
	RECORD_DATA = 23,
};

/* The records of one direction. */
struct record_way {
	gnutls_aead_cipher_hd_t aead;	/* NULL: not set up */
	uint16_t version;		/* 0x0303, 0x0304 */
	uint8_t explicit_nonce;		/* bytes of it in each record: 8 or 0 */
	uint8_t iv[12];
	uint64_t sequence;		/* of the next record */
	uint64_t limit;			/* records with sequence numbers from here: no more */
};
#define RECORD_WAY_NULL ((struct record_way){ .aead = NULL })

/* 0 or -errno (-EINVAL: a state that is none).  STATE may be wiped then. */
_must_check_ int record_way_init(struct record_way *w, const struct nbdd_tls_state *state,
				 const struct nbdd_tls_direction *direction);
/* Wipe the keys. */
void record_way_deinit(struct record_way *w);

/* How many bytes a record has before and after its data. */
static inline size_t record_prefix(const struct record_way *w)
{
	return RECORD_HEADER + w->explicit_nonce;
}

static inline size_t record_suffix(const struct record_way *w)
{
	return (w->version == 0x0304 ? 1 : 0) + 16;
}

/* Make a record of LEN bytes (at most RECORD_PLAIN_MAX) that stand at RECORD plus the
 * prefix, with room for the suffix behind them.  Bytes of the record, or -errno:
 * -EOVERFLOW at the limit. */
_must_check_ ssize_t record_seal(struct record_way *w, enum record_type type,
				 uint8_t *record, size_t len);

/* What came out of a record. */
struct record {
	uint8_t type;			/* enum record_type, or what the peer made of it */
	size_t size;			/* of the whole record, in bytes */
	const uint8_t *data;		/* inside the record, or where it was to go */
	size_t len;
	const char *why;		/* static text at -EPROTO: what the peer did */
};

/* Open the record that stands at RECORD, if all of it is among the HAVE bytes: 1, 0 (more
 * bytes are needed: see record_size), or -EPROTO with ret->why. */
_must_check_ int record_open(struct record_way *w, uint8_t *record, size_t have,
			     struct record *ret);
/* The same with the data going TO, which has room for record_room() bytes and may hold
 * anything after a failure; the record stays as it is. */
_must_check_ int record_open_to(struct record_way *w, const uint8_t *record, size_t have,
				uint8_t *to, struct record *ret);

/* What a record of SIZE bytes may need when it is opened: its data and what goes around it. */
static inline size_t record_room(const struct record_way *w, size_t size)
{
	return size - record_prefix(w) - 16;
}
