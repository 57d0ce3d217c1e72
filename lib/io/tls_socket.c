/* Below gnutls: the socket, by big buffers. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/io/tls_session.h"

ssize_t tls_read_socket(struct tls *s, int flags)
{
	ssize_t r;

	/* What is there of a record stays, in front. */
	if (s->in_len && s->in_first)
		memmove(s->in, s->in + s->in_first, s->in_len);
	s->in_first = 0;
	do
		r = recv(s->fd, s->in + s->in_len, IN_SIZE - s->in_len, flags);
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		if (errno != EAGAIN)
			s->io_error = errno;
		return -errno;
	}
	s->eof = r == 0;
	s->in_len += (size_t)r;
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
	size_t have;

	if (!s->own && !s->in_len && !s->eof && s->may_read) {
		s->may_read = false;
		r = tls_read_socket(s, MSG_DONTWAIT);
	}
	have = s->own ? s->feed : s->in_len;
	if (!have) {
		if (s->eof && !s->in_len)
			return 0;
		gnutls_transport_set_errno(s->session, (int)-r);
		return -1;
	}
	size = MIN(size, have);
	memcpy(data, s->in + s->in_first, size);
	if (s->own)
		s->feed -= size;
	else
		follow(s, data, size);
	s->in_first += size;
	s->in_len -= size;
	return (ssize_t)size;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned msec)
{
	const struct tls *s = ptr;

	return (s->own ? s->feed : s->in_len) || s->eof;
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
int tls_flush_out(struct tls *s)
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

void tls_socket_set(struct tls *s)
{
	gnutls_transport_set_ptr(s->session, s);
	gnutls_transport_set_pull_function(s->session, pull);
	gnutls_transport_set_pull_timeout_function(s->session, pull_timeout);
	gnutls_transport_set_vec_push_function(s->session, push);
}
