/* The life of a session. */
#include "lib/session/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util/fd.h"

static void set_defaults(struct settings *s)
{
	*s = (struct settings) {
		.tls = LIBNBD_TLS_DISABLE,
		.verify_peer = true,
		.structured_replies = true,
		.extended_headers = true,
		.block_size = true,
		.meta_contexts = true,
		.pread_initialize = true,
		.strict = LIBNBD_STRICT_MASK,
		.handshake_flags = LIBNBD_HANDSHAKE_FLAG_MASK,
		.uri_transports = LIBNBD_ALLOW_TRANSPORT_MASK,
		.uri_tls = LIBNBD_TLS_ALLOW,
	};
}

struct nbd_handle *session_new(const char *name)
{
	struct nbd_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	set_defaults(&h->settings);
	h->settings.export_name = strdup("");
	h->name = strdup(name);
	h->transport = TRANSPORT_NULL;
	h->wake_fd = -1;
	h->option.last_reply = -1;
	if (!h->settings.export_name || !h->name ||
	    pthread_mutex_init(&h->lock, NULL) != 0) {
		free(h->settings.export_name);
		free(h->name);
		free(h);
		return NULL;
	}
	pthread_cond_init(&h->woken, NULL);
	return h;
}

static void free_settings(struct settings *s)
{
	free(s->export_name);
	free(s->tls_files.ca);
	free(s->tls_files.certificate);
	free(s->tls_files.key);
	free(s->tls_certificates);
	free(s->tls_username);
	free(s->tls_psk_file);
	free(s->tls_hostname);
	free(s->tls_priority);
	free(s->activation_name);
}

void session_reset_export(struct nbd_handle *h)
{
	struct export *e = &h->export;

	free(e->canonical_name);
	free(e->description);
	e->canonical_name = e->description = NULL;
	e->known = e->block_sizes = false;
	e->size = e->flags = 0;
	e->block_minimum = e->block_preferred = e->block_maximum = 0;
}

/* Drop the connection and what belongs to it; what was learned stays. */
static void disconnect(struct nbd_handle *h, enum phase phase)
{
	atomic_store(&h->phase, phase);
	atomic_store(&h->direction, 0);
	transport_close(&h->transport);
	dial_free(STEAL_PTR(h->dial));
	tx_free(&h->tx);
	rx_abandon(h);
	buffer_clear(&h->option.in);
}

void session_free(struct nbd_handle *h)
{
	/* The buffer of a read under way may be gone by now: nobody waits for it. */
	h->rx.left = 0;
	disconnect(h, PHASE_CLOSED);
	commands_free(h);
	option_clear(&h->option);
	session_reset_export(h);
	meta_clear(&h->meta);
	free_settings(&h->settings);
	uri_free(h->target);
	process_stop(&h->process);
	CALLBACK_FREE(h->debug_callback);
	free(h->name);
	fd_close(h->wake_fd);
	pthread_cond_destroy(&h->woken);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static void end(struct nbd_handle *h, enum phase phase)
{
	enum phase before = atomic_load(&h->phase);

	if (before == PHASE_CLOSED || before == PHASE_DEAD)
		return;
	debug_log(h, "connection is %s", phase == PHASE_DEAD ? "dead" : "closed");
	disconnect(h, phase);
	commands_abort(h, 0, ENOTCONN);
	option_finish(h, before == PHASE_OPTION && phase == PHASE_CLOSED ? 0 : ENOTCONN);
	session_wake(h);
}

int session_die(struct nbd_handle *h)
{
	end(h, PHASE_DEAD);
	return -1;
}

void session_closed(struct nbd_handle *h)
{
	end(h, PHASE_CLOSED);
}

void session_attached(struct nbd_handle *h)
{
	atomic_store(&h->phase, PHASE_HELLO);
	session_update_direction(h);
}

int session_attach(struct nbd_handle *h, int fd)
{
	int r = transport_plain(&h->transport, fd);

	if (r < 0)
		return session_error(h, -r, "fcntl: set O_NONBLOCK");
	session_attached(h);
	return 0;
}
