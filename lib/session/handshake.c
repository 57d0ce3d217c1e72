/* From the server's first byte to transmission ("Handshake"): messages are taken whole from
 * h->option.in, a row a phase. */
#include <errno.h>
#include <inttypes.h>

#include "lib/session/session.h"
#include "lib/wire/option.h"

#define HANDSHAKE_READ		4096	/* bytes received at a time, at least */
#define HELLO_SIZE		16
#define OLDSTYLE_REST		(8 + 4 + 124)
#define EXPORT_NAME_REPLY	(8 + 2)
#define RESERVED_ZEROES		124

int handshake_finished(struct nbd_handle *h)
{
	h->option.row = NULL;
	atomic_store(&h->phase, PHASE_TRANSMISSION);
	option_finish(h, 0);
	return 0;
}

static int take_hello(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	uint64_t magic = be64_get(p), version = be64_get(p + 8);

	if (magic != NBD_MAGIC)
		return session_error(h, EPROTO, "handshake: server did not send expected NBD "
				     "magic, but 0x%" PRIx64, magic);
	if (version == NBD_OPTION_MAGIC) {
		atomic_store(&h->phase, PHASE_NEWSTYLE);
		return 0;
	}
	if (version != NBD_OLDSTYLE_MAGIC)
		return session_error(h, EPROTO, "handshake: server is not either an oldstyle or "
				     "fixed newstyle NBD server, its magic is 0x%" PRIx64,
				     version);
	if (h->settings.tls == LIBNBD_TLS_REQUIRE)
		return session_error(h, ENOTSUP, "handshake: server is oldstyle, but handle TLS "
				     "setting is 'require' (%d)", LIBNBD_TLS_REQUIRE);
	h->export.protocol = "oldstyle";
	atomic_store(&h->phase, PHASE_OLDSTYLE);
	return 0;
}

int handshake_set_export(struct nbd_handle *h, uint64_t size, uint16_t flags)
{
	if (size > INT64_MAX)
		return session_error(h, EOVERFLOW, "handshake: server claims an export size of %"
				     PRIu64 ", at most %" PRIi64 " is possible", size,
				     INT64_MAX);
	if (!flags)
		return session_error(h, EINVAL, "handshake: invalid transmission flags 0 from "
				     "server");
	h->export.size = size;
	h->export.flags = flags;
	h->export.known = true;
	debug_log(h, "export size %" PRIu64 ", transmission flags 0x%x", size, flags);
	return 0;
}

static int take_oldstyle(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	/* The upper half of the 32 bits are handshake flags, which must be 0 here. */
	if (handshake_set_export(h, be64_get(p), (uint16_t)be32_get(p + 8)) < 0)
		return -1;
	return handshake_finished(h);
}

static int take_newstyle(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	uint16_t flags = be16_get(p) & h->settings.handshake_flags;
	bool fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	uint8_t out[4];

	h->export.handshake_flags = flags;
	h->export.protocol = fixed ? "newstyle-fixed" : "newstyle";
	be32_put(out, flags);
	if (tx_append(&h->tx, out, sizeof(out)) < 0)
		return session_error(h, ENOMEM, "no memory for a message");
	if (!fixed && h->settings.tls == LIBNBD_TLS_REQUIRE)
		return session_error(h, ENOTSUP, "handshake: server is not fixed newstyle, but "
				     "handle TLS setting is 'require' (%d)",
				     LIBNBD_TLS_REQUIRE);
	if (fixed)
		return option_next(h, h->settings.opt_mode ? PLAN_CONNECT_OPT_MODE
							   : PLAN_CONNECT);
	return option_plain_newstyle(h);
}

static int take_option_reply(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	struct option_reply r;

	if (option_reply_unpack(p, &r) < 0)
		return session_error(h, EPROTO, "handshake: invalid option reply magic or option: "
				     "magic 0x%" PRIx64, be64_get(p));
	return option_reply_take(h, r.option, r.type, p + OPTION_REPLY_SIZE, r.length);
}

static int take_export_name(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	if (handshake_set_export(h, be64_get(p), be16_get(p + 8)) < 0)
		return -1;
	return handshake_finished(h);
}

static size_t export_name_size(struct nbd_handle *h)
{
	return EXPORT_NAME_REPLY +
	       (h->export.handshake_flags & NBD_FLAG_NO_ZEROES ? 0 : RESERVED_ZEROES);
}

/* How many bytes the message has that starts with the LEN bytes at P; a number greater than
 * LEN when it cannot be told yet. */
static size_t message_size(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	switch (atomic_load(&h->phase)) {
	case PHASE_HELLO:
		return HELLO_SIZE;
	case PHASE_OLDSTYLE:
		return OLDSTYLE_REST;
	case PHASE_NEWSTYLE:
		return 2;
	case PHASE_EXPORT_NAME:
		return export_name_size(h);
	default:
		if (len < OPTION_REPLY_SIZE)
			return OPTION_REPLY_SIZE;
		return OPTION_REPLY_SIZE + (size_t)be32_get(p + 16);
	}
}

static int take(struct nbd_handle *h, const uint8_t *p, size_t len)
{
	switch (atomic_load(&h->phase)) {
	case PHASE_HELLO:
		return take_hello(h, p, len);
	case PHASE_OLDSTYLE:
		return take_oldstyle(h, p, len);
	case PHASE_NEWSTYLE:
		return take_newstyle(h, p, len);
	case PHASE_EXPORT_NAME:
		return take_export_name(h, p, len);
	default:
		return take_option_reply(h, p, len);
	}
}

/* Messages may come in a row: act on all that are there. */
static int handshake_feed(struct nbd_handle *h)
{
	struct buffer *in = &h->option.in;

	while (phase_is_connecting(atomic_load(&h->phase))) {
		size_t size = message_size(h, in->data, in->len);

		if (size > OPTION_REPLY_SIZE + OPTION_REPLY_MAX)
			return session_error(h, EPROTO, "handshake: invalid option reply length: "
					     "%zu bytes, at most %u are allowed",
					     size - OPTION_REPLY_SIZE, OPTION_REPLY_MAX);
		if (in->len < size)
			return 0;
		if (take(h, in->data, size) < 0)
			return -1;
		if (!in->data)
			return 0;	/* the session is over */
		buffer_consume(in, size);
		/* "NBD_OPT_STARTTLS": what came before TLS is active cannot be trusted. */
		if (atomic_load(&h->phase) == PHASE_TLS)
			return in->len ? session_error(h, EPROTO, "handshake: server sent %zu "
						       "bytes in the clear after it agreed to "
						       "TLS", in->len) : 0;
	}
	return 0;
}

ssize_t handshake_receive(struct nbd_handle *h, bool wait)
{
	struct buffer *in = &h->option.in;
	struct iovec iov;
	ssize_t r;

	in->max = OPTION_REPLY_SIZE + OPTION_REPLY_MAX + HANDSHAKE_READ;
	if (buffer_reserve(in, HANDSHAKE_READ) < 0)
		return -ENOMEM;
	iov = (struct iovec) { in->data + in->len, HANDSHAKE_READ };
	r = session_receive(h, &iov, 1, wait);
	if (r <= 0)
		return r;
	in->len += (size_t)r;
	h->stats.bytes_received += (uint64_t)r;
	if (handshake_feed(h) < 0)
		return -EPROTO;
	if (atomic_load(&h->phase) == PHASE_TRANSMISSION) {
		/* Nothing may come unasked; rx says so if something does. */
		int e = in->len ? rx_feed(h, in->data, in->len) : 0;

		buffer_clear(in);
		return e < 0 ? e : r;
	}
	return r;
}
