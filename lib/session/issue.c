/* From a request to its place in the queue. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/session.h"

#define PAYLOAD_MIN (1u << 20)		/* servers should take that much */
#define LENGTH32_MAX UINT32_MAX		/* of a compact request */

/* What each command needs and may have. */
static const struct command_row {
	uint32_t flags;			/* that libnbd accepts for it */
	uint16_t needs;			/* transmission flag, 0: none */
	bool writes;			/* is for exports that are not read-only */
	bool ranged;			/* has offset and length */
	const char *name;		/* of the operation, in messages */
} rows[] = {
	[NBD_CMD_READ] = { 0, 0, false, true, "read" },
	[NBD_CMD_WRITE] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_PAYLOAD_LEN, 0, true, true,
			    "write" },
	[NBD_CMD_FLUSH] = { 0, NBD_FLAG_SEND_FLUSH, false, false, "flush" },
	[NBD_CMD_TRIM] = { NBD_CMD_FLAG_FUA, NBD_FLAG_SEND_TRIM, true, true, "trim" },
	[NBD_CMD_CACHE] = { 0, NBD_FLAG_SEND_CACHE, false, true, "cache" },
	[NBD_CMD_WRITE_ZEROES] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE |
				   NBD_CMD_FLAG_FAST_ZERO, NBD_FLAG_SEND_WRITE_ZEROES, true,
				   true, "zero" },
	[NBD_CMD_BLOCK_STATUS] = { NBD_CMD_FLAG_REQ_ONE, 0, false, true, "block status" },
};

static const struct flag_row {
	uint32_t flag;
	uint16_t needs;
	const char *name;
} flag_rows[] = {
	{ NBD_CMD_FLAG_FUA, NBD_FLAG_SEND_FUA, "FUA" },
	{ NBD_CMD_FLAG_DF, NBD_FLAG_SEND_DF, "DF" },
	{ NBD_CMD_FLAG_FAST_ZERO, NBD_FLAG_SEND_FAST_ZERO, "fast zero" },
};

static uint32_t flags_allowed(const struct command_spec *s)
{
	uint32_t allowed = rows[s->type].flags;

	if (s->report == REPORT_CHUNK)
		allowed |= NBD_CMD_FLAG_DF;
	if (s->contexts)
		allowed |= NBD_CMD_FLAG_PAYLOAD_LEN;
	return allowed;
}

/* "Transmission flags": what was not exposed must not be used. */
static int check_support(struct nbd_handle *h, const struct command_spec *s)
{
	const struct command_row *row = &rows[s->type];
	uint16_t have = h->export.flags;
	bool read_only = have & NBD_FLAG_READ_ONLY;

	if (s->type == NBD_CMD_BLOCK_STATUS &&
	    (!h->export.structured_replies || !h->meta.n_selected))
		return session_error(h, ENOTSUP, "did not negotiate any metadata contexts, "
				     "either you did not call nbd_add_meta_context before "
				     "connecting or the server does not support it");
	if ((row->needs & have) != row->needs)
		return session_error(h, EINVAL, "server does not support %s operations",
				     row->name);
	if (row->writes && read_only)
		return session_error(h, EPERM, "server does not support write operations");
	for (size_t i = 0; i < ARRAY_SIZE(flag_rows); i++)
		if (s->flags & flag_rows[i].flag && !(have & flag_rows[i].needs))
			return session_error(h, EINVAL, "server does not support the %s flag",
					     flag_rows[i].name);
	return 0;
}

static int check_range(struct nbd_handle *h, const struct command_spec *s)
{
	const struct export *e = &h->export;
	uint32_t strict = h->settings.strict;
	uint32_t align = e->block_sizes ? e->block_minimum - 1 : 0;

	if (strict & LIBNBD_STRICT_ZERO_SIZE && s->count == 0)
		return session_error(h, EINVAL, "count cannot be 0");
	if (strict & LIBNBD_STRICT_ALIGN && (s->offset | s->count) & align)
		return session_error(h, EINVAL, "request is unaligned: offset %" PRIu64
				     " and count %" PRIu64 " must be multiples of %" PRIu32,
				     s->offset, s->count, e->block_minimum);
	if (strict & LIBNBD_STRICT_BOUNDS &&
	    (s->offset > e->size || s->count > e->size - s->offset))
		return session_error(h, rows[s->type].writes ? ENOSPC : EINVAL,
				     "request out of bounds: offset %" PRIu64 " count %" PRIu64
				     " size %" PRIu64, s->offset, s->count, e->size);
	return 0;
}

/* The most that the server takes in one read or write. */
uint64_t payload_limit(struct nbd_handle *h)
{
	const struct export *e = &h->export;

	if (!e->block_sizes)
		return PAYLOAD_MAX;
	if (e->block_maximum < PAYLOAD_MIN)
		return PAYLOAD_MIN;
	return MIN(e->block_maximum, PAYLOAD_MAX);
}

static int check_length(struct nbd_handle *h, const struct command_spec *s)
{
	bool payload = s->type == NBD_CMD_READ || s->type == NBD_CMD_WRITE;
	uint64_t max = payload ? PAYLOAD_MAX
		     : h->export.extended_headers ? UINT64_MAX : LENGTH32_MAX;

	if (payload && h->settings.strict & LIBNBD_STRICT_PAYLOAD)
		max = payload_limit(h);
	if (s->count > max)
		return session_error(h, ERANGE, "request too large: maximum request size is %"
				     PRIu64, max);
	return 0;
}

static int check(struct nbd_handle *h, const struct command_spec *s)
{
	uint32_t strict = h->settings.strict;
	uint32_t bad = strict & LIBNBD_STRICT_FLAGS ? s->flags & ~flags_allowed(s)
						    : s->flags & ~UINT32_C(0xffff);

	if (bad)
		return session_error(h, EINVAL, "flags: invalid value for flag: 0x%" PRIx32,
				     s->flags);
	if (h->disconnecting)
		return session_error(h, EINVAL, "cannot request more commands after "
				     "NBD_CMD_DISC");
	/* A sum of lengths that went over the top must not look like a mere range. */
	if (s->iov && s->count > PAYLOAD_MAX)
		return check_length(h, s);
	if (strict & LIBNBD_STRICT_COMMANDS && check_support(h, s) < 0)
		return -1;
	if (rows[s->type].ranged && check_range(h, s) < 0)
		return -1;
	return check_length(h, s);
}

/* "Extended headers": a write must say that its length is that of its payload.  Programs
 * that do not know the flag must get it right all the same, so it is only left to those that
 * ask for LIBNBD_STRICT_PAYLOAD, which is newer, without LIBNBD_STRICT_AUTO_FLAG. */
static uint16_t wire_flags(struct nbd_handle *h, const struct command_spec *s, bool payload)
{
	uint32_t strict = h->settings.strict;
	uint16_t flags = (uint16_t)s->flags;

	if (!(strict & LIBNBD_STRICT_AUTO_FLAG) && strict & LIBNBD_STRICT_PAYLOAD)
		return flags;
	if (s->type != NBD_CMD_WRITE && !s->contexts)
		return flags;
	return payload && h->export.extended_headers
		? flags | NBD_CMD_FLAG_PAYLOAD_LEN
		: flags & (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
}

static int queue_payload(struct nbd_handle *h, struct command *c, const struct command_spec *s,
			 size_t payload_len)
{
	int r = 0;

	if (c->payload)
		return tx_append_payload(&h->tx, c->payload, payload_len);
	if (s->type != NBD_CMD_WRITE)
		return 0;
	if (!s->iov)
		return tx_append_payload(&h->tx, s->data, s->count);
	for (size_t i = 0; i < s->iovcnt && r == 0; i++)
		r = tx_append_payload(&h->tx, s->iov[i].iov_base, s->iov[i].iov_len);
	return r;
}

/* Append the request and its payload to the queue. */
static int queue(struct nbd_handle *h, struct command *c, const struct command_spec *s,
		 size_t payload_len)
{
	struct request r = {
		.flags = c->flags, .type = s->type, .cookie = c->cookie,
		.offset = s->offset, .length = payload_len ? payload_len : s->count,
	};
	bool extended = h->export.extended_headers;
	uint64_t start = h->tx.queued;
	uint8_t *p;

	p = tx_reserve(&h->tx, extended ? EXTENDED_REQUEST_SIZE : REQUEST_SIZE);
	if (!p)
		return -ENOMEM;
	if (extended)
		request_pack_extended(p, &r);
	else
		request_pack(p, &r);
	if (queue_payload(h, c, s, payload_len) < 0) {
		tx_rewind(&h->tx, start);
		return -ENOMEM;
	}
	c->tx_start = start;
	c->tx_end = h->tx.queued;
	h->stats.chunks_sent++;
	return 0;
}

/* The payload of a filtered block status request: effect length and context ids.  Without
 * the server's help, or when every context is wanted, there is none. */
static int make_filter(struct nbd_handle *h, struct command *c, const struct command_spec *s,
		       size_t *ret_len)
{
	size_t n = 0;

	while (s->contexts[n])
		n++;
	c->payload = malloc(8 + 4 * n);
	if (!c->payload)
		return session_error(h, ENOMEM, "no memory for a request");
	be64_put(c->payload, s->count);
	for (size_t i = 0; i < n; i++) {
		const struct meta_context *m = meta_by_name(&h->meta, s->contexts[i]);

		if (!m)
			return session_error(h, EINVAL, "metadata context '%s' was not "
					     "negotiated", s->contexts[i]);
		be32_put(c->payload + 8 + 4 * i, m->id);
	}
	c->contexts = (uint32_t)n;
	*ret_len = 8 + 4 * n;
	return 0;
}

static int check_filter(struct nbd_handle *h, const struct command_spec *s)
{
	if (!(h->export.flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD) || !h->export.extended_headers)
		return session_error(h, EINVAL, "server does not support the block status "
				     "payload flag");
	return 0;
}

static int copy_iov(struct nbd_handle *h, struct command *c, const struct command_spec *s)
{
	c->iov = calloc(s->iovcnt + 1, sizeof(*c->iov));
	if (!c->iov)
		return session_error(h, ENOMEM, "no memory for %zu buffers", s->iovcnt);
	memcpy(c->iov, s->iov, s->iovcnt * sizeof(*c->iov));
	c->iovcnt = s->iovcnt;
	return 0;
}

static void init(struct nbd_handle *h, struct command *c, const struct command_spec *s)
{
	c->offset = s->offset;
	c->count = s->count;
	c->buf = s->buf;
	c->data_seen = 0;
	c->error = 0;
	c->type = s->type;
	c->report = REPORT_NONE;
	c->sync = s->sync;
	c->answered = false;
	c->zeroed = !h->settings.pread_initialize;
	c->chunks = 0;
	c->contexts = (uint32_t)h->meta.n_selected;
	c->flags = wire_flags(h, s, s->contexts || s->type == NBD_CMD_WRITE);
}

/* From here on the command owns the callbacks. */
static void take_callbacks(struct command *c, const struct command_spec *s)
{
	c->report = s->report;
	switch (s->report) {
	case REPORT_CHUNK:
		c->chunk = CALLBACK_TAKE((nbd_chunk_callback *)s->callback);
		break;
	case REPORT_EXTENT:
		c->extent = CALLBACK_TAKE((nbd_extent_callback *)s->callback);
		break;
	case REPORT_EXTENT64:
		c->extent64 = CALLBACK_TAKE((nbd_extent64_callback *)s->callback);
		break;
	}
	if (s->completion)
		c->completion = CALLBACK_TAKE(s->completion);
}

void command_kick(struct nbd_handle *h)
{
	/* The first request of an idle handle goes out at once; a failure is told when the
	 * caller polls. */
	int r = tx_flush(h);

	if (r < 0 && r != -EAGAIN)
		h->tx.error = -r;
	session_update_direction(h);
}

/* Send the request that was queued last, or leave it to the loop that sends. */
static void send_or_leave(struct nbd_handle *h, bool idle, bool sync)
{
	if (h->polling || (idle && !session_in_loop(h))) {
		command_kick(h);
		/* The other thread may not hear of room in the socket. */
		if (!sync)
			session_send_beside(h, h->tx.queued);
		return;
	}
	if (!idle) {
		atomic_store_explicit(&h->direction, LIBNBD_AIO_DIRECTION_BOTH,
				      memory_order_relaxed);
		return;
	}
	/* The loop may be another thread's and ask without the lock: if it did so before this
	 * store, it waits for a reply that nothing will bring (see session_direction). */
	atomic_store(&h->direction, LIBNBD_AIO_DIRECTION_BOTH);
	if (!atomic_load(&h->direction_stale))
		command_kick(h);
}

void command_not_begun(struct nbd_handle *h, void *buf, size_t count)
{
	if (buf && h->settings.pread_initialize)
		memset(buf, 0, count);
}

void command_not_begun_vector(struct nbd_handle *h, const struct iovec *iov, size_t n)
{
	size_t left = PAYLOAD_MAX;

	/* Lengths that go beyond what any read may have are taken for a mistake. */
	for (size_t i = 0; iov && i < n; i++) {
		if (iov[i].iov_len > left)
			return;
		left -= iov[i].iov_len;
	}
	for (size_t i = 0; iov && i < n; i++)
		command_not_begun(h, iov[i].iov_base, iov[i].iov_len);
}

static int64_t issue(struct nbd_handle *h, const struct command_spec *s)
{
	bool idle = !atomic_load_explicit(&h->in_flight, memory_order_relaxed) &&
		    !tx_pending(&h->tx);
	size_t payload_len = 0;
	struct command *c;
	uint64_t cookie;

	if (check(h, s) < 0 || (s->contexts && check_filter(h, s) < 0))
		return -1;
	c = command_new(h);
	if (!c)
		return session_error(h, ENOMEM, "no memory for a request");
	init(h, c, s);
	if ((s->contexts && make_filter(h, c, s, &payload_len) < 0) ||
	    (s->iov && s->type == NBD_CMD_READ && copy_iov(h, c, s) < 0)) {
		command_retire(h, c);
		return -1;
	}
	if (queue(h, c, s, payload_len) < 0) {
		command_retire(h, c);
		return session_error(h, ENOMEM, "no memory for a request");
	}
	take_callbacks(c, s);
	in_flight_add(h, 1);
	h->burst++;
	cookie = c->cookie;		/* the reply may come meanwhile */
	send_or_leave(h, idle, s->sync);
	return (int64_t)cookie;
}

int64_t command_issue(struct nbd_handle *h, const struct command_spec *s)
{
	int64_t cookie = issue(h, s);

	if (cookie < 0 && s->buf)
		command_not_begun(h, s->buf, s->count);
	else if (cookie < 0 && s->type == NBD_CMD_READ)
		command_not_begun_vector(h, s->iov, s->iovcnt);
	return cookie;
}

int command_run(struct nbd_handle *h, struct command_spec *s)
{
	int64_t cookie;

	s->sync = true;
	cookie = command_issue(h, s);
	return cookie < 0 ? -1 : session_wait_command(h, (uint64_t)cookie);
}
