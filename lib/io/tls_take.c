/* From a TLS session to what another needs to go on with it. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/io/tls_reason.h"
#include "lib/io/tls_session.h"
#include "lib/util/macro.h"

#define SETTLE_MAX 64	/* messages of TLS, such as tickets, that are taken in at the end */

static int64_t expiry(const gnutls_datum_t *der)
{
	gnutls_x509_crt_t crt;
	int64_t when = 0;

	if (gnutls_x509_crt_init(&crt) < 0)
		return 0;
	if (gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER) == 0)
		when = (int64_t)gnutls_x509_crt_get_expiration_time(crt);
	gnutls_x509_crt_deinit(crt);
	return when > 0 ? when : 0;
}

static uint16_t version_number(gnutls_session_t session)
{
	static const uint16_t numbers[] = {
		[GNUTLS_TLS1_0] = 0x0301, [GNUTLS_TLS1_1] = 0x0302,
		[GNUTLS_TLS1_2] = 0x0303, [GNUTLS_TLS1_3] = 0x0304,
	};
	gnutls_protocol_t v = gnutls_protocol_get_version(session);

	return v < ARRAY_SIZE(numbers) ? numbers[v] : 0;
}

void tls_info(struct transport *t, struct nbdd_tls_info *ret)
{
	gnutls_session_t session = t->tls->session;
	const gnutls_datum_t *own = NULL;
	gnutls_x509_crt_t crt;
	int64_t when;

	*ret = (struct nbdd_tls_info) { .version = version_number(session) };
	snprintf(ret->cipher, sizeof(ret->cipher), "%s",
		 gnutls_cipher_get_name(gnutls_cipher_get(session)));
	if (gnutls_auth_get_type(session) != GNUTLS_CRD_CERTIFICATE)
		return;
	own = gnutls_certificate_get_ours(session);
	if (own)
		ret->own_expires = expiry(own);
	if (tls_peer_certificate(session, &crt) < 0)
		return;
	tls_certificate_names(crt, ret->peer, sizeof(ret->peer));
	when = (int64_t)gnutls_x509_crt_get_expiration_time(crt);
	ret->peer_expires = when > 0 ? when : 0;
	gnutls_x509_crt_deinit(crt);
}

static size_t unread(const struct tls *s)
{
	uint8_t byte;
	int n = 0;

	/* A vsock does not know how many. */
	if (ioctl(s->fd, FIONREAD, &n) < 0 || n < 0)
		n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
	return s->in_len + gnutls_record_check_pending(s->session) + (size_t)n;
}

/* Session tickets follow the handshake ("RFC 8446", 4.6.1). */
int tls_settle(struct transport *t, char message[static TLS_MESSAGE_MAX])
{
	struct tls *s = t->tls;
	uint8_t byte;
	struct iovec iov = { &byte, 1 };
	ssize_t r;

	if (s->plain_len)
		return tls_fail(message, -EPROTO, "server sent bytes that nobody asked for");
	tls_records_end(s);
	for (unsigned i = 0; unread(s); i++) {
		if (i == SETTLE_MAX)
			return tls_fail(message, -EPROTO, "TLS: server goes on sending");
		r = t->ops->recv(t, &iov, 1, false);
		if (r == 0)
			return tls_fail(message, -ENOTCONN, "server disconnected");
		if (r > 0)
			return tls_fail(message, -EPROTO, "server sent bytes that nobody asked "
					"for");
		if (r != -EAGAIN)
			return tls_fail(message, (int)r, "%s", s->message[0] ? s->message
				: "TLS: connection lost");
	}
	if (s->header_len || s->record_left)
		return tls_fail(message, -EPROTO, "TLS: server sent part of a record");
	if (s->out.len)
		return tls_fail(message, -EBUSY, "TLS: %zu bytes are not sent yet", s->out.len);
	return 0;
}

static const struct {
	gnutls_cipher_algorithm_t gnutls;
	enum nbdd_tls_cipher cipher;
	unsigned key_len;
} ciphers[] = {
	{ GNUTLS_CIPHER_AES_128_GCM, NBDD_TLS_AES_128_GCM, 16 },
	{ GNUTLS_CIPHER_AES_256_GCM, NBDD_TLS_AES_256_GCM, 32 },
	{ GNUTLS_CIPHER_CHACHA20_POLY1305, NBDD_TLS_CHACHA20_POLY1305, 32 },
};

static int find_cipher(struct tls *s, struct nbdd_tls_state *state)
{
	gnutls_cipher_algorithm_t c = gnutls_cipher_get(s->session);

	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++)
		if (ciphers[i].gnutls == c) {
			state->cipher = (uint16_t)ciphers[i].cipher;
			state->key_len = (uint8_t)ciphers[i].key_len;
			return 0;
		}
	return -ENOTSUP;
}

/* -EPROTO: gnutls has another idea of this cipher than the table. */
static int direction(struct tls *s, bool receive, struct nbdd_tls_state *state)
{
	struct nbdd_tls_direction *d = receive ? &state->receive : &state->send;
	gnutls_datum_t mac, iv, key;
	uint8_t sequence[8];

	if (gnutls_record_get_state(s->session, receive, &mac, &iv, &key, sequence) < 0 ||
	    key.size != state->key_len || iv.size > sizeof(d->iv) ||
	    (!receive && iv.size != state->iv_len))
		return -EPROTO;
	state->iv_len = (uint8_t)iv.size;
	memcpy(d->key, key.data, key.size);
	memcpy(d->iv, iv.data, iv.size);
	memcpy(&d->sequence, sequence, sizeof(sequence));
	d->sequence = be64toh(d->sequence);
	return 0;
}

int tls_state(struct transport *t, struct nbdd_tls_state *ret,
	      char message[static TLS_MESSAGE_MAX])
{
	return tls_session_state(t->tls, ret, message);
}

int tls_session_state(struct tls *s, struct nbdd_tls_state *ret,
		      char message[static TLS_MESSAGE_MAX])
{
	struct nbdd_tls_state state = { .version = version_number(s->session) };
	size_t record = gnutls_record_get_max_size(s->session);

	if (state.version < 0x0303 || find_cipher(s, &state) < 0)
		return tls_fail(message, -ENOTSUP, "TLS: %s with %s cannot be taken over; "
				"TLS 1.2 or 1.3 with AES-128-GCM, AES-256-GCM or "
				"CHACHA20-POLY1305 can",
				gnutls_protocol_get_name(gnutls_protocol_get_version(s->session)),
				gnutls_cipher_get_name(gnutls_cipher_get(s->session)));
	if (record < RECORD_PLAIN_MAX)
		return tls_fail(message, -ENOTSUP, "TLS: server takes records of at most %zu "
				"bytes, which cannot be taken over; expected %d", record,
				RECORD_PLAIN_MAX);
	if (direction(s, true, &state) < 0 || direction(s, false, &state) < 0) {
		explicit_bzero(&state, sizeof(state));
		return tls_fail(message, -EPROTO, "TLS: gnutls does not tell the state of %s",
				gnutls_cipher_get_name(gnutls_cipher_get(s->session)));
	}
	*ret = state;
	explicit_bzero(&state, sizeof(state));
	return 0;
}

int tls_abandon(struct transport *t)
{
	tls_free(t->tls);
	return t->fd;
}
