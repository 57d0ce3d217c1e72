/* The receiving half of the hot path: one receive brings the rest of the payload under way
 * straight to the user's buffer and, behind it, many further replies into the look-ahead. */
#include "lib/session/rx.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/io/lookahead.h"
#include "lib/session/session.h"

/* After a payload of RX_BIG bytes more of its kind is expected: a short look-ahead then
 * leaves most of the next one for the user's buffer, where a long one would copy it. */
#define RX_BIG			(32 * 1024)
#define RX_SHORT_LOOKAHEAD	4096
/* A TLS record is opened as a whole: a smaller payload has no room for one that holds more,
 * and would have it copied twice. */
#define RX_RECORD		(16 * 1024)

#define GATHER_FIRST		4096	/* bytes that are reserved before any has come */

/* Where the rest of the payload goes; the number of entries. */
static size_t payload_iov(struct rx *rx, struct iovec iov[static RX_IOV_MAX])
{
	size_t n = 0, left = rx->left, offset = rx->iov_offset;

	if (!left)
		return 0;
	if (rx->dst) {
		iov[0] = (struct iovec) { rx->dst, left };
		return 1;
	}
	for (size_t i = rx->iov_index; left && n < RX_IOV_MAX; i++) {
		const struct iovec *v = &rx->command->iov[i];
		size_t len = MIN(v->iov_len - offset, left);

		if (len)
			iov[n++] = (struct iovec) { (uint8_t *)v->iov_base + offset, len };
		left -= len;
		offset = 0;
	}
	return n;
}

/* LEN bytes of the payload are in their place. */
static void payload_advance(struct rx *rx, size_t len)
{
	rx->left -= len;
	if (rx->dst) {
		rx->dst += len;
		return;
	}
	rx->iov_offset += len;
	while (rx->left && rx->iov_offset >= rx->command->iov[rx->iov_index].iov_len)
		rx->iov_offset -= rx->command->iov[rx->iov_index++].iov_len;
}

/* Copy LEN <= left bytes of the payload to their place. */
static void payload_copy(struct rx *rx, const uint8_t *p, size_t len)
{
	struct iovec iov[RX_IOV_MAX];

	if (rx->dst) {
		memcpy(rx->dst, p, len);
		payload_advance(rx, len);
		return;
	}
	while (len) {
		size_t n = payload_iov(rx, iov), done = 0;

		for (size_t i = 0; i < n && done < len; i++) {
			size_t part = MIN(iov[i].iov_len, len - done);

			memcpy(iov[i].iov_base, p + done, part);
			done += part;
		}
		payload_advance(rx, done);
		p += done;
		len -= done;
	}
}

/* More room for a payload that is gathered; it grows with what has really come. */
static int gather_more(struct nbd_handle *h)
{
	struct rx *rx = &h->rx;
	size_t n = MAX(rx->payload.len, (size_t)GATHER_FIRST);

	n = MIN(n, (size_t)rx->to_gather);
	if (buffer_reserve(&rx->payload, n) < 0) {
		session_error(h, ENOMEM, "no memory for a reply of %zu bytes",
			      rx->payload.len + (size_t)rx->to_gather);
		return -EPROTO;
	}
	rx->dst = rx->payload.data + rx->payload.len;
	rx->left = n;
	rx->payload.len += n;
	rx->to_gather -= n;
	return 0;
}

/* All of rx->left has come. */
static int payload_complete(struct nbd_handle *h)
{
	if (h->rx.to_gather)
		return gather_more(h);
	return chunk_end(h, h->rx.command);
}

/* The command that a reply is for: one that was sent and whose reply is not complete. */
static struct command *reply_command(struct nbd_handle *h, uint64_t cookie)
{
	struct command *c = command_find(h, cookie);

	if (!c || c->state != COMMAND_IN_FLIGHT || c->answered) {
		session_error(h, EPROTO, "no matching cookie found for server reply "
			      "0x%" PRIx64 ", this is a bug in the server", cookie);
		return NULL;
	}
	if (c->tx_start >= h->tx.sent) {
		session_error(h, EPROTO, "server replied to request 0x%" PRIx64
			      " before it was sent", cookie);
		return NULL;
	}
	return c;
}

/* Is a reply with this magic what was negotiated? */
static bool magic_expected(struct nbd_handle *h, uint32_t magic)
{
	switch (magic) {
	case NBD_SIMPLE_REPLY_MAGIC:
		return !h->export.extended_headers;
	case NBD_STRUCTURED_REPLY_MAGIC:
		return h->export.structured_replies && !h->export.extended_headers;
	case NBD_EXTENDED_REPLY_MAGIC:
		return h->export.extended_headers;
	default:
		return false;
	}
}

/* Act on the message at P of HAVE bytes.  Bytes used, 0 when its header is not complete, or
 * -EPROTO. */
static ssize_t take_message(struct nbd_handle *h, const uint8_t *p, size_t have)
{
	struct rx *rx = &h->rx;
	uint32_t magic;
	size_t prefix;
	int r;

	if (have < SIMPLE_REPLY_SIZE)
		return 0;
	magic = be32_get(p);
	if (!magic_expected(h, magic))
		return rx_broken(h, "invalid server reply magic 0x%" PRIx32, magic);
	if (have < reply_header_size(magic))
		return 0;
	reply_unpack(p, magic, &rx->reply);
	prefix = chunk_prefix(&rx->reply);
	if (have < rx->reply.size + prefix)
		return 0;
	rx->command = reply_command(h, rx->reply.cookie);
	if (!rx->command)
		return -EPROTO;
	h->stats.chunks_received++;
	r = chunk_begin(h, rx->command, p + rx->reply.size);
	if (r == 0 && !rx->left && rx->to_gather)
		r = gather_more(h);
	return r < 0 ? r : (ssize_t)(rx->reply.size + prefix);
}

int rx_feed(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	struct rx *rx = &h->rx;
	const uint8_t *end = p + len;

	while (p < end) {
		size_t have = (size_t)(end - p);
		ssize_t used;

		if (rx->left) {
			used = (ssize_t)MIN(have, rx->left);
			payload_copy(rx, p, (size_t)used);
			if (!rx->left && payload_complete(h) < 0)
				return -EPROTO;
		} else {
			used = take_message(h, p, have);
			if (used < 0)
				return -EPROTO;
			if (used == 0)
				break;
		}
		p += used;
	}
	rx->carry_len = (size_t)(end - p);
	if (rx->carry_len)
		memcpy(rx->carry, p, rx->carry_len);
	atomic_store_explicit(&rx->partial, rx->left || rx->carry_len,
			      memory_order_relaxed);
	return 0;
}

void rx_abandon(struct nbd_handle *h)
{
	static const uint8_t zeroes[4096];
	struct rx *rx = &h->rx;

	while (!rx->gather && rx->left && h->settings.pread_initialize)
		payload_copy(rx, zeroes, MIN(rx->left, sizeof(zeroes)));
	buffer_clear(&rx->payload);
	*rx = (struct rx) {};
}

ssize_t rx_receive(struct nbd_handle *h, bool wait)
{
	struct rx *rx = &h->rx;
	struct iovec iov[RX_IOV_MAX + 1];
	size_t n = payload_iov(rx, iov), direct = 0, carry = rx->carry_len, room;
	uint8_t *look = lookahead_take();
	ssize_t r;

	if (!look)
		return -ENOMEM;
	if (h->transport.tls && rx->left < RX_RECORD && rx->content_length < RX_BIG)
		n = 0;
	for (size_t i = 0; i < n; i++)
		direct += iov[i].iov_len;
	room = direct >= RX_BIG || rx->content_length >= RX_BIG ? RX_SHORT_LOOKAHEAD
								: LOOKAHEAD_SIZE;
	memcpy(look, rx->carry, carry);
	iov[n] = (struct iovec) { look + carry, room - carry };
	r = session_receive(h, iov, n + 1, wait);
	if (r > 0) {
		size_t got = (size_t)r;

		h->stats.bytes_received += got;
		direct = MIN(direct, got);
		if (direct)
			payload_advance(rx, direct);
		if (direct && !rx->left && payload_complete(h) < 0)
			r = -EPROTO;
		else if (rx_feed(h, look, carry + got - direct) < 0)
			r = -EPROTO;
	}
	lookahead_give(look);
	return r;
}
