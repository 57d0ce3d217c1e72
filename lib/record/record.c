#include "lib/record/record.h"

#include <errno.h>
#include <string.h>

#define TAG 16u
#define WIRE_VERSION 0x0303	/* in each record's header, also of TLS 1.3 */

static const struct {
	gnutls_cipher_algorithm_t algorithm;
	uint8_t key_len;
	uint8_t explicit_nonce;		/* in TLS 1.2 */
	uint64_t limit;
} ciphers[] = {
	[NBDD_TLS_AES_128_GCM] = { GNUTLS_CIPHER_AES_128_GCM, 16, 8, RECORD_GCM_LIMIT },
	[NBDD_TLS_AES_256_GCM] = { GNUTLS_CIPHER_AES_256_GCM, 32, 8, RECORD_GCM_LIMIT },
	[NBDD_TLS_CHACHA20_POLY1305] = { GNUTLS_CIPHER_CHACHA20_POLY1305, 32, 0, UINT64_MAX },
};

int record_way_init(struct record_way *w, const struct nbdd_tls_state *state,
		    const struct nbdd_tls_direction *direction)
{
	bool old = state->version == 0x0303;
	gnutls_datum_t key = { (uint8_t *)direction->key, state->key_len };
	int r;

	*w = RECORD_WAY_NULL;
	if ((!old && state->version != 0x0304) || state->cipher >= ARRAY_SIZE(ciphers) ||
	    !ciphers[state->cipher].key_len ||
	    state->key_len != ciphers[state->cipher].key_len)
		return -EINVAL;
	w->version = state->version;
	w->explicit_nonce = old ? ciphers[state->cipher].explicit_nonce : 0;
	if (state->iv_len != sizeof(w->iv) - w->explicit_nonce)
		return -EINVAL;
	memcpy(w->iv, direction->iv, state->iv_len);
	w->sequence = direction->sequence;
	w->limit = ciphers[state->cipher].limit;
	r = gnutls_aead_cipher_init(&w->aead, ciphers[state->cipher].algorithm, &key);
	if (r < 0) {
		*w = RECORD_WAY_NULL;
		return r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
	}
	return 0;
}

void record_way_deinit(struct record_way *w)
{
	if (w->aead)
		gnutls_aead_cipher_deinit(w->aead);
	explicit_bzero(w, sizeof(*w));
}

static void put16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
}

/* RFC 8446, 5.3 and RFC 7905, 2: the sequence number into the IV.  RFC 5288, 3: behind the
 * salt what stands in the record. */
static void make_nonce(const struct record_way *w, const uint8_t *explicit_nonce,
		       uint8_t nonce[static 12])
{
	uint8_t sequence[8];

	memcpy(nonce, w->iv, 12);
	if (w->explicit_nonce) {
		memcpy(nonce + 4, explicit_nonce, 8);
		return;
	}
	put64(sequence, w->sequence);
	for (int i = 0; i < 8; i++)
		nonce[4 + i] ^= sequence[i];
}

/* What is authenticated beside the data; its length in bytes.  LEN: of the plaintext. */
static size_t make_aad(const struct record_way *w, const uint8_t *header, size_t len,
		       uint8_t aad[static 13])
{
	if (w->version == 0x0304) {		/* RFC 8446, 5.2 */
		memcpy(aad, header, RECORD_HEADER);
		return RECORD_HEADER;
	}
	put64(aad, w->sequence);		/* RFC 5246, 6.2.3.3 */
	memcpy(aad + 8, header, 3);
	put16(aad + 11, len);
	return 13;
}

ssize_t record_seal(struct record_way *w, enum record_type type, uint8_t *record, size_t len)
{
	uint8_t nonce[12], aad[13], *data = record + record_prefix(w);
	size_t body = w->explicit_nonce + len + record_suffix(w), sealed = len + TAG, aad_len;
	bool inner = w->version == 0x0304;

	if (len > RECORD_PLAIN_MAX)
		return -EMSGSIZE;
	if (w->sequence >= w->limit)
		return -EOVERFLOW;
	record[0] = inner ? RECORD_DATA : type;
	put16(record + 1, WIRE_VERSION);
	put16(record + 3, body);
	if (w->explicit_nonce)
		put64(record + RECORD_HEADER, w->sequence);
	if (inner) {
		data[len] = type;
		sealed++;
	}
	make_nonce(w, record + RECORD_HEADER, nonce);
	aad_len = make_aad(w, record, len, aad);
	if (gnutls_aead_cipher_encrypt(w->aead, nonce, sizeof(nonce), aad, aad_len, TAG, data,
				       sealed - TAG, data, &sealed) < 0)
		return -EIO;
	w->sequence++;
	return (ssize_t)(RECORD_HEADER + body);
}

static int fault(struct record *ret, const char *why)
{
	ret->why = why;
	return -EPROTO;
}

/* RFC 8446, 5.4: the type is the last byte that is not zero; what follows it is padding. */
static int open_inner(struct record *ret)
{
	while (ret->len && ret->data[ret->len - 1] == 0)
		ret->len--;
	if (!ret->len)
		return fault(ret, "sent a TLS record without a type");
	ret->type = ret->data[--ret->len];
	return 0;
}

static int check_header(const struct record_way *w, const uint8_t *header, struct record *ret)
{
	size_t body = (size_t)header[3] << 8 | header[4];

	if (header[0] < RECORD_CHANGE_CIPHER_SPEC || header[0] > RECORD_DATA ||
	    header[1] != WIRE_VERSION >> 8 || header[2] != (WIRE_VERSION & 0xff))
		return fault(ret, "sent something that is no TLS record");
	if (w->version == 0x0304 && header[0] != RECORD_DATA)
		return fault(ret, "sent a TLS record that is not encrypted");
	if (body > RECORD_BODY_MAX)
		return fault(ret, "sent a TLS record longer than allowed");
	if (body < w->explicit_nonce + record_suffix(w))
		return fault(ret, "sent a TLS record that is too short");
	ret->type = header[0];
	ret->size = RECORD_HEADER + body;
	return 0;
}

int record_open(struct record_way *w, uint8_t *record, size_t have, struct record *ret)
{
	return record_open_to(w, record, have, record + record_prefix(w), ret);
}

int record_open_to(struct record_way *w, const uint8_t *record, size_t have, uint8_t *to,
		   struct record *ret)
{
	const uint8_t *data = record + record_prefix(w);
	uint8_t nonce[12], aad[13];
	size_t aad_len, sealed;
	int r;

	*ret = (struct record){};
	if (have < RECORD_HEADER)
		return 0;
	r = check_header(w, record, ret);
	if (r < 0 || have < ret->size)
		return r;
	if (w->sequence >= w->limit)
		return fault(ret, "sent more TLS records than one key is good for");
	sealed = ret->size - record_prefix(w);
	ret->len = sealed - TAG;
	make_nonce(w, record + RECORD_HEADER, nonce);
	aad_len = make_aad(w, record, ret->len, aad);
	if (gnutls_aead_cipher_decrypt(w->aead, nonce, sizeof(nonce), aad, aad_len, TAG, data,
				       sealed, to, &ret->len) < 0)
		return fault(ret, "sent a TLS record that is not authentic");
	w->sequence++;
	ret->data = to;
	if (w->version == 0x0304) {
		r = open_inner(ret);
		if (r < 0)
			return r;
	}
	return ret->len > RECORD_PLAIN_MAX ? fault(ret, "sent a TLS record with too much data")
					   : 1;
}
