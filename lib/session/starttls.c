/* NBD_OPT_STARTTLS: from the server's consent to a session that is encrypted. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/session/session.h"

/* The name that the server's certificate must have; NULL where none is known. */
static const char *server_name(struct nbd_handle *h)
{
	const char *name = h->settings.tls_hostname;

	if (name && *name)
		return name;
	return h->target && h->target->transport == NBDD_TRANSPORT_TCP ? h->target->host : NULL;
}

/* "NBD_OPT_STARTTLS": the client begins again, as after the hello. */
static void forget(struct nbd_handle *h)
{
	h->export.structured_replies = h->export.extended_headers = false;
	session_reset_export(h);
	meta_select_nothing(&h->meta);
}

static int failed(struct nbd_handle *h, int r, const char *message)
{
	return session_error(h, -r, "handshake: %s", message);
}

/* 0, -EAGAIN, or -EPROTO with the error set. */
static int go_on(struct nbd_handle *h)
{
	char message[TLS_MESSAGE_MAX], *what;
	int r = tls_handshake(&h->transport, message);

	if (r == -EAGAIN)
		return r;
	if (r < 0) {
		failed(h, r, message);
		return -EPROTO;
	}
	h->export.tls = h->tls_unproven = true;
	if (h->debug && (what = tls_description(&h->transport))) {
		debug_log(h, "TLS is active: %s", what);
		free(what);
	}
	atomic_store(&h->phase, PHASE_OPTION);
	return option_continue(h) < 0 ? -EPROTO : 0;
}

struct tls_config starttls_config(struct nbd_handle *h)
{
	const struct settings *s = &h->settings;

	return (struct tls_config) {
		.verify_peer = s->verify_peer,
		.hostname = server_name(h),
		.files = s->tls_files,
		.certificates = s->tls_certificates,
		.psk_file = s->tls_psk_file,
		.username = s->tls_username,
		.priority = s->tls_priority,
		.credentials = s->tls_credentials,
	};
}

int starttls_begin(struct nbd_handle *h)
{
	struct tls_config config = starttls_config(h);
	char message[TLS_MESSAGE_MAX];
	int r = tls_start(&h->transport, &config, message);

	if (r < 0)
		return failed(h, r, message);
	forget(h);
	atomic_store(&h->phase, PHASE_TLS);
	r = go_on(h);
	return r == -EAGAIN ? 0 : r < 0 ? -1 : 0;
}

ssize_t starttls_receive(struct nbd_handle *h, bool wait)
{
	ssize_t r = wait ? session_fill(h) : 0;

	/* TLS knows better what an error of the socket means. */
	if (r != -EAGAIN)
		r = go_on(h);
	return r < 0 ? r : 1;
}
