#include "lib/session/tx.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/session.h"

/* The place of piece V in the flat buffer: is it there at all? */
static bool in_headers(const struct tx *tx, const struct iovec *v, size_t *ret_at)
{
	*ret_at = (uintptr_t)v->iov_base - (uintptr_t)tx->headers;
	return tx->headers && *ret_at < tx->headers_size;
}

/* A queue that never runs empty is not reset: what was sent gives its place to what comes,
 * once it is half of all, so that a byte is moved once on average. */
static void reuse_headers(struct tx *tx)
{
	size_t sent = tx->headers_len, at;

	for (size_t i = tx->iov_len; i-- > tx->iov_first;)
		if (in_headers(tx, &tx->iov[i], &at))
			sent = at;
	if (!sent || sent < tx->headers_len - sent)
		return;
	for (size_t i = tx->iov_first; i < tx->iov_len; i++)
		if (in_headers(tx, &tx->iov[i], &at))
			tx->iov[i].iov_base = tx->headers + at - sent;
	tx->headers_len -= sent;
	memmove(tx->headers, tx->headers + sent, tx->headers_len);
}

static void reuse_iov(struct tx *tx)
{
	size_t left = tx->iov_len - tx->iov_first;

	if (!tx->iov_first || tx->iov_first < left)
		return;
	memmove(tx->iov, tx->iov + tx->iov_first, left * sizeof(*tx->iov));
	tx->iov_first = 0;
	tx->iov_len = left;
}

/* Grow the flat buffer.  Pieces that lie in it move along. */
static int grow_headers(struct tx *tx, size_t len)
{
	size_t size = tx->headers_size ? tx->headers_size : 1024, at;
	uint8_t *to, *from = tx->headers;

	while (size < tx->headers_len + len)
		size *= 2;
	to = malloc(size);
	if (!to)
		return -ENOMEM;
	if (tx->headers_len)
		memcpy(to, from, tx->headers_len);
	for (size_t i = tx->iov_first; i < tx->iov_len; i++)
		if (in_headers(tx, &tx->iov[i], &at))
			tx->iov[i].iov_base = to + at;
	free(from);
	tx->headers = to;
	tx->headers_size = size;
	return 0;
}

static int grow_iov(struct tx *tx)
{
	size_t size = tx->iov_size ? 2 * tx->iov_size : 16;
	struct iovec *iov = realloc(tx->iov, size * sizeof(*iov));

	if (!iov)
		return -ENOMEM;
	tx->iov = iov;
	tx->iov_size = size;
	return 0;
}

static int append_piece(struct tx *tx, void *base, size_t len)
{
	if (tx->iov_len == tx->iov_size) {
		reuse_iov(tx);
		if (tx->iov_len == tx->iov_size && grow_iov(tx) < 0)
			return -ENOMEM;
	}
	tx->iov[tx->iov_len++] = (struct iovec) { base, len };
	tx->queued += len;
	return 0;
}

uint8_t *tx_reserve(struct tx *tx, size_t len)
{
	struct iovec *last = tx_pending(tx) ? &tx->iov[tx->iov_len - 1] : NULL;
	uint8_t *p;

	if (tx->headers_len + len > tx->headers_size)
		reuse_headers(tx);
	if (tx->headers_len + len > tx->headers_size && grow_headers(tx, len) < 0)
		return NULL;
	p = tx->headers + tx->headers_len;
	if (last && (uint8_t *)last->iov_base + last->iov_len == p) {
		last->iov_len += len;
		tx->queued += len;
	} else if (append_piece(tx, p, len) < 0) {
		return NULL;
	}
	tx->headers_len += len;
	return p;
}

int tx_append(struct tx *tx, const void *data, size_t len)
{
	uint8_t *p = tx_reserve(tx, len);

	if (!p)
		return -ENOMEM;
	memcpy(p, data, len);
	return 0;
}

int tx_append_payload(struct tx *tx, const void *data, size_t len)
{
	return len ? append_piece(tx, (void *)data, len) : 0;
}

void tx_rewind(struct tx *tx, uint64_t queued)
{
	while (tx->queued > queued) {
		struct iovec *last = &tx->iov[tx->iov_len - 1];
		size_t cut = MIN((size_t)(tx->queued - queued), last->iov_len);
		uint8_t *end = (uint8_t *)last->iov_base + last->iov_len;

		if (end == tx->headers + tx->headers_len)
			tx->headers_len -= cut;
		last->iov_len -= cut;
		tx->queued -= cut;
		if (!last->iov_len)
			tx->iov_len--;
	}
}

/* All is sent: begin anew at the start of the buffers, give back big ones. */
static void reset(struct tx *tx)
{
	tx->iov_first = tx->iov_len = tx->headers_len = 0;
	if (tx->headers_size > TX_HEADERS_KEEP) {
		free(tx->headers);
		tx->headers = NULL;
		tx->headers_size = 0;
	}
	if (tx->iov_size > TX_IOV_KEEP) {
		free(tx->iov);
		tx->iov = NULL;
		tx->iov_size = 0;
	}
}

static void advance(struct tx *tx, size_t n)
{
	tx->sent += n;
	while (n) {
		struct iovec *v = &tx->iov[tx->iov_first];

		if (n < v->iov_len) {
			v->iov_base = (uint8_t *)v->iov_base + n;
			v->iov_len -= n;
			return;
		}
		n -= v->iov_len;
		tx->iov_first++;
	}
}

/* A server may answer a write before it has taken all of its payload; the user gets his
 * buffer back when the kernel has it all. */
static void complete_answered(struct nbd_handle *h)
{
	for (uint32_t i = 0; i < h->commands.n_slots && h->tx.answered; i++) {
		struct command *c =
			&h->commands.slabs[i / SLAB_COMMANDS][i % SLAB_COMMANDS];

		if (c->state != COMMAND_IN_FLIGHT || !c->answered ||
		    c->tx_end > h->tx.sent)
			continue;
		h->tx.answered--;
		command_complete(h, c);
	}
}

int tx_flush(struct nbd_handle *h)
{
	struct tx *tx = &h->tx;

	while (tx_pending(tx)) {
		size_t all = tx->iov_len - tx->iov_first, n = MIN(all, (size_t)IOV_MAX);
		ssize_t r;

		r = h->transport.ops->send(&h->transport, tx->iov + tx->iov_first, n);
		if (r < 0)
			return (int)r;
		h->stats.bytes_sent += (uint64_t)r;
		advance(tx, (size_t)r);
		if (tx->answered)
			complete_answered(h);
		/* Less than was offered: the socket is full, no need to ask again. */
		if (n == all && tx_pending(tx))
			return -EAGAIN;
	}
	reset(tx);
	return h->transport.tls ? h->transport.ops->flush(&h->transport) : 0;
}

bool tx_waiting(struct nbd_handle *h)
{
	return tx_pending(&h->tx) || transport_unsent(&h->transport);
}

void tx_free(struct tx *tx)
{
	free(tx->headers);
	free(tx->iov);
	*tx = (struct tx) {};
}
