#include "tests/unit/tls_pair.h"

#include <gnutls/x509.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/util/macro.h"
#include "lib/wire/be.h"
#include "tests/unit/unit.h"

const struct tls_kind tls_kinds[6] = {
	{ 0x0304, NBDD_TLS_AES_128_GCM }, { 0x0304, NBDD_TLS_AES_256_GCM },
	{ 0x0304, NBDD_TLS_CHACHA20_POLY1305 }, { 0x0303, NBDD_TLS_AES_128_GCM },
	{ 0x0303, NBDD_TLS_AES_256_GCM }, { 0x0303, NBDD_TLS_CHACHA20_POLY1305 },
};

static const struct {
	const char *name;
	unsigned key_len;
} ciphers[] = {
	[NBDD_TLS_AES_128_GCM] = { "AES-128-GCM", 16 },
	[NBDD_TLS_AES_256_GCM] = { "AES-256-GCM", 32 },
	[NBDD_TLS_CHACHA20_POLY1305] = { "CHACHA20-POLY1305", 32 },
};

/* A certificate of the server's own making, which the client does not look at. */
static void make_certificate(gnutls_certificate_credentials_t keys)
{
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;

	CHECK_INT(gnutls_x509_privkey_init(&key), 0);
	CHECK_INT(gnutls_x509_crt_init(&crt), 0);
	CHECK_INT(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
		  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), 0);
	CHECK_INT(gnutls_x509_crt_set_key(crt, key), 0);
	CHECK_INT(gnutls_x509_crt_set_version(crt, 3), 0);
	CHECK_INT(gnutls_x509_crt_set_serial(crt, "\1", 1), 0);
	CHECK_INT(gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60), 0);
	CHECK_INT(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600), 0);
	CHECK_INT(gnutls_x509_crt_set_dn(crt, "CN=server", NULL), 0);
	CHECK_INT(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
	CHECK_INT(gnutls_certificate_set_x509_key(keys, &crt, 1, key), 0);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
}

static gnutls_session_t session(unsigned role, int fd, void *keys, uint16_t version,
				uint16_t cipher)
{
	gnutls_session_t s;
	char priority[200];

	snprintf(priority, sizeof(priority), "NORMAL:-VERS-ALL:+VERS-TLS%s:-CIPHER-ALL:+%s",
		 version == 0x0304 ? "1.3" : "1.2",
		 ciphers[cipher].name);
	CHECK_INT(gnutls_init(&s, role | GNUTLS_NONBLOCK), 0);
	CHECK_INT(gnutls_priority_set_direct(s, priority, NULL), 0);
	CHECK_INT(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, keys), 0);
	gnutls_transport_set_int(s, fd);
	return s;
}

static void shake_hands(struct tls_pair *p)
{
	int a = GNUTLS_E_AGAIN, b = GNUTLS_E_AGAIN;
	char byte;

	while (a < 0 || b < 0) {
		if (a < 0)
			a = gnutls_handshake(p->client);
		if (b < 0)
			b = gnutls_handshake(p->server);
		if (gnutls_error_is_fatal(a) || gnutls_error_is_fatal(b))
			FAIL("%s, %s", gnutls_strerror(a), gnutls_strerror(b));
	}
	CHECK_INT(gnutls_record_recv(p->client, &byte, 1), GNUTLS_E_AGAIN);
}

void tls_pair_make(struct tls_pair *p, uint16_t version, uint16_t cipher)
{
	int fds[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	p->client_fd = fds[0];
	p->server_fd = fds[1];
	CHECK_INT(gnutls_certificate_allocate_credentials(&p->client_keys), 0);
	CHECK_INT(gnutls_certificate_allocate_credentials(&p->server_keys), 0);
	make_certificate(p->server_keys);
	p->client = session(GNUTLS_CLIENT, p->client_fd, p->client_keys, version, cipher);
	p->server = session(GNUTLS_SERVER, p->server_fd, p->server_keys, version, cipher);
	shake_hands(p);
}

void tls_pair_free(struct tls_pair *p)
{
	gnutls_deinit(p->client);
	gnutls_deinit(p->server);
	gnutls_certificate_free_credentials(p->client_keys);
	gnutls_certificate_free_credentials(p->server_keys);
	close(p->client_fd);
	close(p->server_fd);
}

static void direction(const struct tls_pair *p, unsigned receive, struct nbdd_tls_state *s,
		      struct nbdd_tls_direction *d)
{
	gnutls_datum_t mac, iv, key;
	uint8_t sequence[8];

	CHECK_INT(gnutls_record_get_state(p->client, receive, &mac, &iv, &key, sequence), 0);
	CHECK_INT(key.size, s->key_len);
	s->iv_len = (uint8_t)iv.size;
	memcpy(d->key, key.data, key.size);
	memcpy(d->iv, iv.data, iv.size);
	d->sequence = be64_get(sequence);
}

struct nbdd_tls_state tls_pair_state(const struct tls_pair *p)
{
	static const uint16_t of[] = {
		[GNUTLS_CIPHER_AES_128_GCM] = NBDD_TLS_AES_128_GCM,
		[GNUTLS_CIPHER_AES_256_GCM] = NBDD_TLS_AES_256_GCM,
		[GNUTLS_CIPHER_CHACHA20_POLY1305] = NBDD_TLS_CHACHA20_POLY1305,
	};
	struct nbdd_tls_state s = {
		.version = gnutls_protocol_get_version(p->client) == GNUTLS_TLS1_3 ? 0x0304
										   : 0x0303,
		.cipher = of[gnutls_cipher_get(p->client)],
	};

	s.key_len = (uint8_t)ciphers[s.cipher].key_len;
	direction(p, 0, &s, &s.send);
	direction(p, 1, &s, &s.receive);
	return s;
}
