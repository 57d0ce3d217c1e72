#include "lib/session/tx.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/session.h"

/* Grow the flat buffer.  Pieces that lie in it move along. */
static int grow_headers(struct tx *tx, size_t len)
{
	size_t size = tx->headers_size ? tx->headers_size : 1024;
	uint8_t *to, *from = tx->headers;

	while (size < tx->headers_len + len)
		size *= 2;
	to = malloc(size);
	if (!to)
		return -ENOMEM;
	if (tx->headers_len)
		memcpy(to, from, tx->headers_len);
	for (size_t i = tx->iov_first; i < tx->iov_len; i++) {
		uintptr_t at = (uintptr_t)tx->iov[i].iov_base - (uintptr_t)from;

		if (from && at < tx->headers_size)
			tx->iov[i].iov_base = to + at;
	}
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
	if (tx->iov_len == tx->iov_size && grow_iov(tx) < 0)
		return -ENOMEM;
	tx->iov[tx->iov_len++] = (struct iovec) { base, len };
	tx->queued += len;
	return 0;
}

uint8_t *tx_reserve(struct tx *tx, size_t len)
{
	struct iovec *last = tx_pending(tx) ? &tx->iov[tx->iov_len - 1] : NULL;
	uint8_t *p;

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
