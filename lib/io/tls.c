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

/* ---- below gnutls: the socket ---- */

static ssize_t read_socket(struct tls *s, int flags)
{
	ssize_t r;

	do
		r = recv(s->fd, s->in, IN_SIZE, flags);
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		if (errno != EAGAIN)
			s->io_error = errno;
		return -errno;
	}
	s->eof = r == 0;
	s->in_first = 0;
	s->in_len = (size_t)r;
	return r;
}

/* Follow the borders of the records: what gnutls keeps of one that it has taken in part cannot
 * be asked for ("RFC 8446", 5.1: a header of 5 bytes, the last two of which are the length). */
static void follow(struct tls *s, const uint8_t *p, size_t len)
{
	while (len) {
		size_t n = MIN(len, s->record_left);

		if (!n) {
			s->header[s->header_len++] = *p;
			n = 1;
			if (s->header_len == RECORD_HEADER) {
				s->record_left = (size_t)s->header[3] << 8 | s->header[4];
				s->header_len = 0;
			}
		} else {
			s->record_left -= n;
		}
		p += n;
		len -= n;
	}
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t size)
{
	struct tls *s = ptr;
	ssize_t r = -EAGAIN;

	if (!s->in_len && !s->eof && s->may_read) {
		s->may_read = false;
		r = read_socket(s, MSG_DONTWAIT);
	}
	if (!s->in_len) {
		if (s->eof)
			return 0;
		gnutls_transport_set_errno(s->session, (int)-r);
		return -1;
	}
	size = MIN(size, s->in_len);
	memcpy(data, s->in + s->in_first, size);
	follow(s, data, size);
	s->in_first += size;
	s->in_len -= size;
	return (ssize_t)size;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned msec)
{
	const struct tls *s = ptr;

	return s->in_len || s->eof;
}

/* gnutls never hears of a full socket, so that it keeps no half-sent record. */
static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int n)
{
	struct tls *s = ptr;
	size_t total = 0;

	for (int i = 0; i < n; i++) {
		int r = buffer_append(&s->out, iov[i].iov_base, iov[i].iov_len);

		if (r < 0) {
			gnutls_transport_set_errno(s->session, -r);
			return -1;
		}
		total += iov[i].iov_len;
	}
	return (ssize_t)total;
}

/* 0 when the socket took all, or -errno (-EAGAIN: it is full). */
static int flush_out(struct tls *s)
{
	while (s->out_first < s->out.len) {
		ssize_t r = send(s->fd, s->out.data + s->out_first, s->out.len - s->out_first,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		s->out_first += (size_t)r;
	}
	s->out.len = s->out_first = 0;
	return 0;
}

/* ---- above gnutls: the transport ---- */

static size_t pending(const struct tls *s)
{
	return s->in_len + gnutls_record_check_pending(s->session);
}

static size_t tls_pending(struct transport *t)
{
	const struct tls *s = t->tls;

	return pending(s) + s->ended;
}

static ssize_t tls_fill(struct transport *t)
{
	return read_socket(t->tls, 0);
}

static bool tls_unsent(struct transport *t)
{
	return t->tls->out.len > 0;
}

static const char *tls_message(struct transport *t)
{
	return t->tls->message[0] ? t->tls->message : NULL;
}

static int end(struct tls *s, int r)
{
	s->ended = true;
	s->end = r;
	return r;
}

/* gnutls_record_recv returned ERROR <= 0: -EAGAIN when that is no fault of the connection,
 * else how it ended. */
static int receive_error(struct tls *s, int error)
{
	switch (error) {
	case 0:				/* close_notify */
	case GNUTLS_E_PREMATURE_TERMINATION:
		return end(s, 0);	/* the NBD protocol tells whether it is too early */
	case GNUTLS_E_PULL_ERROR:
		return end(s, s->io_error ? -s->io_error : -EIO);
	case GNUTLS_E_REHANDSHAKE:	/* TLS 1.2: a client may decline */
		gnutls_alert_send(s->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
		return -EAGAIN;
	default:
		if (!gnutls_error_is_fatal(error))
			return -EAGAIN;
		return end(s, tls_record_reason(s->session, error, s->message));
	}
}

/* Receive to one piece.  Bytes, 0 for nothing there, or negative at the end. */
static ssize_t receive_piece(struct tls *s, uint8_t *to, size_t len)
{
	size_t got = 0;

	while (got < len) {
		size_t before = pending(s);
		ssize_t r = gnutls_record_recv(s->session, to + got, len - got);

		if (r > 0) {
			got += (size_t)r;
			continue;
		}
		if (receive_error(s, (int)r) != -EAGAIN)
			break;
		/* A ticket, a key update or a warning was taken: there may be more behind. */
		if (!pending(s) || pending(s) == before)
			break;
	}
	return (ssize_t)got;
}

/* What is buffered comes before the socket is asked for more.  It never waits: `fill` does. */
static ssize_t tls_recv(struct transport *t, const struct iovec *iov, size_t n, bool wait)
{
	struct tls *s = t->tls;
	size_t got = 0;

	s->may_read = !pending(s);
	for (size_t i = 0; i < n && !s->ended; i++) {
		size_t r = (size_t)receive_piece(s, iov[i].iov_base, iov[i].iov_len);

		got += r;
		if (r < iov[i].iov_len)
			break;
	}
	/* Answers that gnutls gave; what fails here fails again at the next send. */
	if (s->out.len)
		flush_out(s);
	if (got)
		return (ssize_t)got;
	return s->ended ? s->end : -EAGAIN;
}

/* One record of LEN bytes: 0 or -errno. */
static int send_record(struct tls *s, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t r = gnutls_record_send(s->session, p, len);

		if (r < 0)
			return tls_record_reason(s->session, (int)r, s->message);
		p += r;
		len -= (size_t)r;
	}
	return 0;
}

struct cursor {
	const struct iovec *iov;
	size_t n, at, offset;
};

static size_t take(struct cursor *c, size_t len)
{
	c->offset += len;
	if (c->offset == c->iov[c->at].iov_len) {
		c->at++;
		c->offset = 0;
	}
	return len;
}

/* Send one record's worth: from the user's memory when it is there in one piece, else small
 * pieces side by side.  Bytes or -errno. */
static ssize_t send_some(struct tls *s, struct cursor *c)
{
	size_t len = 0;
	int r;

	while (c->at < c->n && len < RECORD_MAX) {
		const uint8_t *p = (uint8_t *)c->iov[c->at].iov_base + c->offset;
		size_t left = c->iov[c->at].iov_len - c->offset;

		if (left >= RECORD_MAX) {
			if (len)
				break;
			r = send_record(s, p, RECORD_MAX);
			return r < 0 ? r : (ssize_t)take(c, RECORD_MAX);
		}
		left = MIN(left, RECORD_MAX - len);
		memcpy(s->stage + len, p, left);
		len += take(c, left);
	}
	r = send_record(s, s->stage, len);
	return r < 0 ? r : (ssize_t)len;
}

static ssize_t tls_send(struct transport *t, const struct iovec *iov, size_t n)
{
	struct cursor c = { .iov = iov, .n = n };
	struct tls *s = t->tls;
	size_t sent = 0;
	int r = s->out.len < OUT_ENOUGH ? 0 : flush_out(s);

	while (r == 0 && c.at < c.n) {
		ssize_t some = send_some(s, &c);

		if (some < 0)
			return some;
		sent += (size_t)some;
		if (s->out.len >= OUT_ENOUGH)
			r = flush_out(s);
	}
	if (r == 0)
		r = flush_out(s);
	if (r < 0 && r != -EAGAIN)
		return r;
	return sent ? (ssize_t)sent : -EAGAIN;
}

static int tls_flush(struct transport *t)
{
	return flush_out(t->tls);
}

void tls_free(struct tls *s)
{
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
		gnutls_bye(s->session, GNUTLS_SHUT_WR);
		flush_out(s);
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

static int set_priority(struct tls *s, const struct tls_config *config, char *message)
{
	const char *given = config->priority ? config->priority : "NORMAL", *where = NULL;
	const char *more = "";
	_cleanup_free_ char *text = NULL;
	int r;

	if (s->keys.psk)
		more = ":+ECDHE-PSK:+DHE-PSK:+PSK";
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
	gnutls_transport_set_ptr(s->session, s);
	gnutls_transport_set_pull_function(s->session, pull);
	gnutls_transport_set_pull_timeout_function(s->session, pull_timeout);
	gnutls_transport_set_vec_push_function(s->session, push);
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
	struct tls_attempt a = { s->session, &s->keys, s->hostname };
	int r, e;

	s->may_read = !s->in_len;
	do
		r = gnutls_handshake(s->session);
	while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r));
	/* The last words are worth sending also after a failure: the alert tells why. */
	e = flush_out(s);
	if (e < 0 && e != -EAGAIN && !s->io_error)
		s->io_error = -e;
	a.io_error = s->io_error;
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r < 0) {
		r = tls_handshake_reason(&a, r, message);
		return end(s, r);
	}
	s->active = true;
	return check_authentication(s, message);
}

char *tls_description(struct transport *t)
{
	char *text = gnutls_session_get_desc(t->tls->session), *copy;

	copy = strdup(text ? text : "");
	gnutls_free(text);
	return copy;
}
