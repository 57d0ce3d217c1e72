#include "lib/io/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/io/tls_reason.h"
#include "lib/io/tls_session.h"
#include "lib/util/cleanup.h"
#include "lib/util/fd.h"

static ssize_t tls_fill(struct transport *t)
{
	return tls_read_socket(t->tls, 0);
}

static bool tls_unsent(struct transport *t)
{
	return t->tls->out.len > 0;
}

static int tls_flush(struct transport *t)
{
	return tls_flush_out(t->tls);
}

static const char *tls_message(struct transport *t)
{
	return t->tls->message[0] ? t->tls->message : NULL;
}

void tls_free(struct tls *s)
{
	record_way_deinit(&s->receive);
	record_way_deinit(&s->send);
	if (s->session)
		gnutls_deinit(s->session);
	tls_credentials_free(&s->keys);
	free(s->hostname);
	buffer_clear(&s->out);
	explicit_bzero(s->stage, sizeof(s->stage));
	free(s);
}

static void tls_close(struct transport *t)
{
	struct tls *s = t->tls;

	/* A farewell without waiting, if it can be sent. */
	if (s->active && !s->end && !s->message[0]) {
		tls_records_end(s);
		gnutls_bye(s->session, GNUTLS_SHUT_WR);
		tls_flush_out(s);
	}
	tls_free(s);
	fd_close(t->fd);
}

static const struct transport_ops tls_ops = {
	.send = tls_send,
	.recv = tls_recv,
	.pending = tls_pending,
	.fill = tls_fill,
	.unsent = tls_unsent,
	.flush = tls_flush,
	.message = tls_message,
	.close = tls_close,
};

/* ---- setting up ---- */

#define PSK ":+ECDHE-PSK:+DHE-PSK:+PSK"
/* A pre-shared key goes with SHA-256, and gnutls prefers AES-256-GCM, CHACHA20, AES-128-GCM:
 * the first is out in TLS 1.3, where it goes with SHA-384, and the second is several times
 * slower than the third.  What is older comes behind them. */
#define AES_FIRST \
	":-CHACHA20-POLY1305:-AES-256-CCM:-AES-128-CCM:-AES-256-CBC:-AES-128-CBC" \
	":+CHACHA20-POLY1305:+AES-256-CCM:+AES-128-CCM:+AES-256-CBC:+AES-128-CBC"

static bool aes_is_fast(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes");
#else
	return false;
#endif
}

static int set_priority(struct tls *s, const struct tls_config *config, char *message)
{
	const char *given = config->priority ? config->priority : "NORMAL", *where = NULL;
	const char *more = "";
	_cleanup_free_ char *text = NULL;
	int r;

	if (s->keys.psk)
		more = config->priority || !aes_is_fast() ? PSK : PSK AES_FIRST;
	/* TLS 1.3 has no anonymous key exchange; a server that knows no other would take it
	 * for the version and then fail. */
	else if (s->keys.anonymous && !config->priority)
		more = ":+ANON-ECDH:+ANON-DH:-VERS-TLS1.3";
	if (asprintf(&text, "%s%s", given, more) < 0) {
		text = NULL;
		return tls_fail(message, -ENOMEM, "TLS: no memory");
	}
	r = gnutls_priority_set_direct(s->session, text, &where);
	return r < 0 ? tls_fail(message, -EINVAL, "TLS: priority '%s' is not valid: %s", given,
				gnutls_strerror(r)) : 0;
}

static bool is_address(const char *name)
{
	uint8_t a[16];

	return inet_pton(AF_INET, name, a) == 1 || inet_pton(AF_INET6, name, a) == 1;
}

static int set_credentials(struct tls *s)
{
	struct tls_credentials *k = &s->keys;
	int r = 0;

	if (k->x509)
		r = gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, k->x509);
	if (r == 0 && k->psk)
		r = gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, k->psk);
	if (r == 0 && k->anonymous)
		r = gnutls_credentials_set(s->session, GNUTLS_CRD_ANON, k->anonymous);
	return r;
}

/* gnutls forgets it when the handshake is over. */
static int on_certificate_request(gnutls_session_t session, unsigned type, unsigned when,
				  unsigned incoming, const gnutls_datum_t *message)
{
	struct tls *s = gnutls_session_get_ptr(session);

	s->certificate_wanted = true;
	return 0;
}

static int set_up(struct tls *s, const struct tls_config *config, char *message)
{
	int r = tls_credentials_load(&s->keys, config, message);

	if (r < 0)
		return r;
	if (config->hostname && !(s->hostname = strdup(config->hostname)))
		return tls_fail(message, -ENOMEM, "TLS: no memory");
	r = gnutls_init(&s->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	if (r == 0)
		r = set_credentials(s);
	if (r == 0 && s->hostname && s->keys.x509 && !is_address(s->hostname))
		r = gnutls_server_name_set(s->session, GNUTLS_NAME_DNS, s->hostname,
					   strlen(s->hostname));
	if (r < 0)
		return tls_fail(message, -EINVAL, "TLS: %s", gnutls_strerror(r));
	r = set_priority(s, config, message);
	if (r < 0)
		return r;
	if (s->keys.x509 && config->verify_peer)
		gnutls_session_set_verify_cert(s->session, s->hostname, 0);
	gnutls_handshake_set_timeout(s->session, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_session_set_ptr(s->session, s);
	gnutls_handshake_set_hook_function(s->session, GNUTLS_HANDSHAKE_CERTIFICATE_REQUEST,
					   GNUTLS_HOOK_POST, on_certificate_request);
	tls_socket_set(s);
	return 0;
}

int tls_start(struct transport *t, const struct tls_config *config,
	      char message[static TLS_MESSAGE_MAX])
{
	struct tls *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return tls_fail(message, -ENOMEM, "TLS: no memory");
	s->fd = t->fd;
	s->out.max = OUT_MAX;
	r = set_up(s, config, message);
	if (r < 0) {
		tls_free(s);
		return r;
	}
	t->tls = s;
	t->ops = &tls_ops;
	return 0;
}

/* The server chose the kind of authentication: it must be one that was asked for. */
static int check_authentication(struct tls *s, char *message)
{
	if (s->keys.psk && gnutls_auth_get_type(s->session) != GNUTLS_CRD_PSK)
		return tls_fail(message, -EKEYREJECTED, "TLS: server did not use the pre-shared "
				"key");
	return 0;
}

int tls_handshake(struct transport *t, char message[static TLS_MESSAGE_MAX])
{
	struct tls *s = t->tls;
	struct tls_attempt a = { s->session, &s->keys, s->hostname, false, 0 };
	int r, e;

	s->may_read = !s->in_len;
	do
		r = gnutls_handshake(s->session);
	while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r));
	/* The last words are worth sending also after a failure: the alert tells why. */
	e = tls_flush_out(s);
	if (e < 0 && e != -EAGAIN && !s->io_error)
		s->io_error = -e;
	a.io_error = s->io_error;
	a.certificate_wanted = s->certificate_wanted;
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r < 0) {
		r = tls_handshake_reason(&a, r, message);
		return tls_end(s, r);
	}
	s->active = true;
	r = check_authentication(s, message);
	if (r == 0)
		tls_records_begin(s);
	return r;
}

char *tls_description(struct transport *t)
{
	char *text = gnutls_session_get_desc(t->tls->session), *copy;

	copy = strdup(text ? text : "");
	gnutls_free(text);
	return copy;
}
