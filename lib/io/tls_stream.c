/* Data in and out of a TLS session. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/io/tls_reason.h"
#include "lib/io/tls_session.h"

static size_t pending(const struct tls *s)
{
	return s->own ? tls_records_pending(s)
		      : s->in_len + gnutls_record_check_pending(s->session);
}

size_t tls_pending(struct transport *t)
{
	const struct tls *s = t->tls;

	return pending(s) + s->ended;
}

int tls_end(struct tls *s, int r)
{
	s->ended = true;
	s->end = r;
	return r;
}

int tls_receive_error(struct tls *s, int error)
{
	switch (error) {
	case 0:				/* close_notify */
	case GNUTLS_E_PREMATURE_TERMINATION:
		return tls_end(s, 0);	/* the NBD protocol tells whether it is too early */
	case GNUTLS_E_PULL_ERROR:
		return tls_end(s, s->io_error ? -s->io_error : -EIO);
	case GNUTLS_E_REHANDSHAKE:	/* TLS 1.2: a client may decline */
		gnutls_alert_send(s->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
		return -EAGAIN;
	default:
		if (!gnutls_error_is_fatal(error))
			return -EAGAIN;
		return tls_end(s, tls_record_reason(s->session, error, s->message));
	}
}

/* Receive to one piece by gnutls.  Bytes, less than LEN when there are no more. */
static size_t receive_piece(struct tls *s, uint8_t *to, size_t len)
{
	size_t got = 0;

	while (got < len) {
		size_t before = pending(s);
		ssize_t r = gnutls_record_recv(s->session, to + got, len - got);

		if (r > 0) {
			got += (size_t)r;
			continue;
		}
		if (tls_receive_error(s, (int)r) != -EAGAIN)
			break;
		/* A ticket, a key update or a warning was taken: there may be more behind. */
		if (!pending(s) || pending(s) == before)
			break;
	}
	return got;
}

/* What is buffered comes before the socket is asked for more.  It never waits: `fill` does. */
ssize_t tls_recv(struct transport *t, const struct iovec *iov, size_t n, bool wait)
{
	struct tls *s = t->tls;
	size_t got = 0;

	s->may_read = !pending(s);
	for (size_t i = 0; i < n && !s->ended; i++) {
		size_t r = (s->own ? tls_records_receive : receive_piece)
			(s, iov[i].iov_base, iov[i].iov_len);

		got += r;
		if (r < iov[i].iov_len)
			break;
	}
	/* Answers that gnutls gave; what fails here fails again at the next send. */
	if (s->out.len)
		tls_flush_out(s);
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

size_t tls_cursor_take(struct tls_cursor *c, size_t max, const uint8_t **ret)
{
	size_t len;

	if (c->at == c->n)
		return 0;
	*ret = (const uint8_t *)c->iov[c->at].iov_base + c->offset;
	len = MIN(c->iov[c->at].iov_len - c->offset, max);
	c->offset += len;
	if (c->offset == c->iov[c->at].iov_len) {
		c->at++;
		c->offset = 0;
	}
	return len;
}

/* Send one record's worth by gnutls: from the user's memory when it is there in one piece,
 * else small pieces side by side.  Bytes or -errno. */
static ssize_t send_some(struct tls *s, struct tls_cursor *c)
{
	size_t len = 0, part = 1;
	const uint8_t *p;
	int r;

	if (c->iov[c->at].iov_len - c->offset >= RECORD_PLAIN_MAX) {
		len = tls_cursor_take(c, RECORD_PLAIN_MAX, &p);
		r = send_record(s, p, len);
		return r < 0 ? r : (ssize_t)len;
	}
	while (len < RECORD_PLAIN_MAX && part) {
		part = tls_cursor_take(c, RECORD_PLAIN_MAX - len, &p);
		memcpy(s->stage + len, p, part);
		len += part;
	}
	r = send_record(s, s->stage, len);
	return r < 0 ? r : (ssize_t)len;
}

ssize_t tls_send(struct transport *t, const struct iovec *iov, size_t n)
{
	struct tls_cursor c = { .iov = iov, .n = n };
	struct tls *s = t->tls;
	size_t sent = 0;
	int r = s->out.len < OUT_ENOUGH ? 0 : tls_flush_out(s);

	while (r == 0 && c.at < c.n) {
		ssize_t some = (s->own ? tls_records_send : send_some)(s, &c);

		if (some < 0)
			return some;
		sent += (size_t)some;
		if (s->out.len >= OUT_ENOUGH)
			r = tls_flush_out(s);
	}
	if (r == 0)
		r = tls_flush_out(s);
	if (r < 0 && r != -EAGAIN)
		return r;
	return sent ? (ssize_t)sent : -EAGAIN;
}
