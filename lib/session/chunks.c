/* What each type of reply message means: a row a type. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/session/session.h"
#include "lib/util/escape.h"

/* The number of bytes in all buffers before OFFSET of C's destination: where RX goes on. */
static void rx_seek(struct rx *rx, struct command *c, uint64_t at)
{
	rx->iov_index = 0;
	rx->iov_offset = 0;
	if (!c->iov) {
		rx->dst = c->buf + at;
		return;
	}
	rx->dst = NULL;
	while (at && at >= c->iov[rx->iov_index].iov_len)
		at -= c->iov[rx->iov_index++].iov_len;
	rx->iov_offset = at;
}

void command_zero(struct command *c, uint64_t at, uint64_t len)
{
	if (!c->iov) {
		memset(c->buf + at, 0, len);
		return;
	}
	for (size_t i = 0; i < c->iovcnt && len; i++) {
		uint64_t part;

		if (at >= c->iov[i].iov_len) {
			at -= c->iov[i].iov_len;
			continue;
		}
		part = MIN(c->iov[i].iov_len - at, len);
		memset((uint8_t *)c->iov[i].iov_base + at, 0, part);
		len -= part;
		at = 0;
	}
}

/* nbd_set_pread_initialize promises that a read which fails leaves no stale memory in the
 * buffer.  When the first thing to come is not all of the data, the buffer is zeroed before;
 * the usual case costs nothing. */
static void prepare_buffer(struct command *c, bool whole)
{
	if (c->zeroed || c->type != NBD_CMD_READ)
		return;
	c->zeroed = true;
	if (!whole)
		command_zero(c, 0, c->count);
}

void command_never_answered(struct command *c)
{
	prepare_buffer(c, false);
}

/* A name for messages that fits any type. */
static const char *name_of(const struct reply *r, char buf[static 32])
{
	const char *name = chunk_name(r->type);

	if (name)
		return name;
	snprintf(buf, 32, "%u", r->type);
	return buf;
}

static int wrong_length(struct nbd_handle *h, const char *expected)
{
	char buf[32];

	return rx_broken(h, "invalid payload length %" PRIu64 " of server reply %s, "
			 "expected %s", h->rx.reply.length, name_of(&h->rx.reply, buf),
			 expected);
}

static int wrong_type(struct nbd_handle *h, struct command *c)
{
	char buf[32];

	return rx_broken(h, "server sent unexpected reply %s to %s request",
			 name_of(&h->rx.reply, buf), command_name(c->type));
}

/* Does [offset, offset + len) lie within the request, and was there not more than was asked
 * for already?  ("Structured reply types": content chunks.) */
static int check_content(struct nbd_handle *h, struct command *c, uint64_t offset,
			 uint64_t len)
{
	if (offset < c->offset || offset - c->offset > c->count ||
	    len > c->count - (offset - c->offset))
		return rx_broken(h, "server reply covers offset %" PRIu64 " length %" PRIu64
				 ", outside of the request's offset %" PRIu64 " length %"
				 PRIu64, offset, len, c->offset, c->count);
	if (len > c->count - c->data_seen)
		return rx_broken(h, "server sent more than the %" PRIu64 " bytes that were "
				 "requested", c->count);
	if (c->data_seen && c->flags & NBD_CMD_FLAG_DF)
		return rx_broken(h, "server sent a second content chunk for a request with "
				 "NBD_CMD_FLAG_DF");
	c->data_seen += len;
	return 0;
}

/* Tell the user of a part of a read.  ERROR is what his callback finds in *error: also after
 * a failure he hears of the parts that follow. */
static void report_chunk(struct command *c, const void *data, uint64_t len, uint64_t offset,
			 unsigned status, int error)
{
	if (!c->chunk.callback)
		return;
	if (CALLBACK_CALL(c->chunk, data, len, offset, status, &error) == -1)
		command_fail(c, error ? error : EPROTO);
}

static int begin_none(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	if (h->rx.reply.length)
		return wrong_length(h, "0");
	if (!(h->rx.reply.flags & NBD_REPLY_FLAG_DONE))
		return rx_broken(h, "server sent NBD_REPLY_TYPE_NONE without "
				 "NBD_REPLY_FLAG_DONE");
	prepare_buffer(c, false);
	return reply_end(h, c);
}

static int begin_data(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	struct rx *rx = &h->rx;
	uint64_t len = rx->reply.length - 8, offset;
	int r;

	if (rx->reply.length < 9)
		return wrong_length(h, "at least 9");
	if (c->type != NBD_CMD_READ)
		return wrong_type(h, c);
	if (len > c->count)
		return wrong_length(h, "no more than was requested");
	offset = be64_get(p);
	r = check_content(h, c, offset, len);
	if (r < 0)
		return r;
	prepare_buffer(c, len == c->count);
	rx->content_offset = offset;
	rx->content_length = len;
	rx_seek(rx, c, offset - c->offset);
	rx->left = len;
	rx->gather = false;
	return 0;
}

static int end_data(struct nbd_handle *h, struct command *c)
{
	struct rx *rx = &h->rx;
	uint64_t at = rx->content_offset - c->offset;

	if (c->report == REPORT_CHUNK)
		report_chunk(c, c->buf + at, rx->content_length, rx->content_offset,
			     LIBNBD_READ_DATA, c->error);
	return 0;
}

static int begin_hole(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	uint64_t offset, len;
	int r;

	if (h->rx.reply.length != 12)
		return wrong_length(h, "12");
	if (c->type != NBD_CMD_READ)
		return wrong_type(h, c);
	offset = be64_get(p);
	len = be32_get(p + 8);
	if (!len)
		return rx_broken(h, "server sent a hole of length 0");
	r = check_content(h, c, offset, len);
	if (r < 0)
		return r;
	prepare_buffer(c, len == c->count);
	command_zero(c, offset - c->offset, len);
	if (c->report == REPORT_CHUNK)
		report_chunk(c, c->buf + (offset - c->offset), len, offset,
			     LIBNBD_READ_HOLE, c->error);
	return h->rx.reply.flags & NBD_REPLY_FLAG_DONE ? reply_end(h, c) : 0;
}

/* Gather the payload; it is acted on when it is complete. */
static int begin_gather(struct nbd_handle *h, uint64_t max)
{
	struct rx *rx = &h->rx;

	buffer_clear(&rx->payload);
	rx->payload.max = max;
	rx->to_gather = rx->reply.length;
	rx->gather = true;
	return 0;
}

static int begin_error(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	uint64_t least = h->rx.reply.type == NBD_REPLY_TYPE_ERROR_OFFSET ? 14 : 6;

	if (h->rx.reply.length < least || h->rx.reply.length > ERROR_CHUNK_MAX)
		return wrong_length(h, least == 6 ? "6 to 65536" : "14 to 65536");
	prepare_buffer(c, false);
	return begin_gather(h, ERROR_CHUNK_MAX);
}

static int end_error(struct nbd_handle *h, struct command *c)
{
	struct rx *rx = &h->rx;
	struct error_chunk e;
	char text[256];
	int error;

	if (error_chunk_unpack(rx->payload.data, rx->payload.len, rx->reply.type, &e) < 0)
		return rx_broken(h, "server sent an error chunk of %zu bytes whose message "
				 "does not fit", rx->payload.len);
	if (h->debug && e.message_length)
		debug_log(h, "server reported: %s",
			  escape_text(text, sizeof(text), e.message, e.message_length));
	/* An error chunk with the value of success is an error all the same. */
	error = e.error ? nbd_error_to_errno(e.error) : EINVAL;
	if (rx->reply.type == NBD_REPLY_TYPE_ERROR_OFFSET) {
		if (e.offset < c->offset || e.offset - c->offset >= MAX(c->count, 1u))
			return rx_broken(h, "server reported an error at offset %" PRIu64
					 ", outside of the request's offset %" PRIu64
					 " length %" PRIu64, e.offset, c->offset, c->count);
		if (c->report == REPORT_CHUNK)
			report_chunk(c, c->buf + (e.offset - c->offset), 0, e.offset,
				     LIBNBD_READ_ERROR, error);
	}
	command_fail(c, error);
	return 0;
}

static int begin_status(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	bool wide = h->rx.reply.type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
	uint64_t head = wide ? 8 : 4, each = wide ? 16 : 8;
	uint64_t len = h->rx.reply.length;

	if (c->type != NBD_CMD_BLOCK_STATUS || wide != h->export.extended_headers)
		return wrong_type(h, c);
	if (len < head + each || (len - head) % each != 0 ||
	    (len - head) / each > EXTENTS_MAX)
		return wrong_length(h, wide ? "8 + 16 times 1 to 1048576"
					    : "4 + 8 times 1 to 1048576");
	return begin_gather(h, head + each * EXTENTS_MAX);
}

static const struct chunk_row {
	uint16_t type;
	uint8_t prefix;		/* bytes of the payload that begin() wants to see */
	int (*begin)(struct nbd_handle *h, struct command *c, const uint8_t *p);
	int (*end)(struct nbd_handle *h, struct command *c);
} rows[] = {
	{ NBD_REPLY_TYPE_OFFSET_DATA, 8, begin_data, end_data },
	{ NBD_REPLY_TYPE_NONE, 0, begin_none, NULL },
	{ NBD_REPLY_TYPE_OFFSET_HOLE, 12, begin_hole, NULL },
	{ NBD_REPLY_TYPE_BLOCK_STATUS, 0, begin_status, extents_deliver },
	{ NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 0, begin_status, extents_deliver },
	{ NBD_REPLY_TYPE_ERROR, 0, begin_error, end_error },
	{ NBD_REPLY_TYPE_ERROR_OFFSET, 0, begin_error, end_error },
};

/* An error of an unknown type fails the command and no more. */
static const struct chunk_row other_error = { 0, 0, begin_error, end_error };

static const struct chunk_row *find_row(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].type == type)
			return &rows[i];
	return type & NBD_REPLY_TYPE_IS_ERROR ? &other_error : NULL;
}

size_t chunk_prefix(const struct reply *r)
{
	const struct chunk_row *row = find_row(r->type);

	/* A length that cannot be right is refused before its payload is waited for. */
	if (!row || r->length < row->prefix || r->length > PAYLOAD_MAX + row->prefix)
		return 0;
	return row->prefix;
}

static int begin_simple(struct nbd_handle *h, struct command *c)
{
	struct rx *rx = &h->rx;

	if (rx->reply.error) {
		prepare_buffer(c, false);
		command_fail(c, nbd_error_to_errno(rx->reply.error));
		return reply_end(h, c);
	}
	if (c->type != NBD_CMD_READ || !c->count)
		return reply_end(h, c);
	prepare_buffer(c, true);
	c->data_seen = c->count;
	rx->content_offset = c->offset;
	rx->content_length = c->count;
	rx_seek(rx, c, 0);
	rx->left = c->count;
	rx->gather = false;
	return 0;
}

int chunk_begin(struct nbd_handle *h, struct command *c, const uint8_t *p)
{
	const struct reply *r = &h->rx.reply;
	const struct chunk_row *row;

	if (r->magic == NBD_SIMPLE_REPLY_MAGIC) {
		if (h->export.structured_replies && c->type == NBD_CMD_READ && !r->error)
			return rx_broken(h, "server sent a simple reply to a read request, "
					 "though structured replies were negotiated");
		return begin_simple(h, c);
	}
	if (r->magic == NBD_EXTENDED_REPLY_MAGIC && r->offset != c->offset)
		return rx_broken(h, "server reply has offset %" PRIu64 ", the request had %"
				 PRIu64, r->offset, c->offset);
	if (++c->chunks > CHUNKS_MAX)
		return rx_broken(h, "server sent more than %u chunks in one reply",
				 CHUNKS_MAX);
	row = find_row(r->type);
	if (!row)
		return wrong_type(h, c);
	return row->begin(h, c, p);
}

int chunk_end(struct nbd_handle *h, struct command *c)
{
	const struct reply *r = &h->rx.reply;
	int e = 0;

	if (r->magic == NBD_SIMPLE_REPLY_MAGIC) {
		e = end_data(h, c);
	} else {
		const struct chunk_row *row = find_row(r->type);

		if (row->end)
			e = row->end(h, c);
	}
	if (h->rx.gather) {
		buffer_clear(&h->rx.payload);
		h->rx.gather = false;
	}
	if (e < 0)
		return e;
	return r->flags & NBD_REPLY_FLAG_DONE ? reply_end(h, c) : 0;
}

int reply_end(struct nbd_handle *h, struct command *c)
{
	/* "A successful reply": all of the data, the status of every context. */
	if (c->type == NBD_CMD_READ && c->data_seen != c->count)
		command_fail(c, EIO);
	if (c->type == NBD_CMD_BLOCK_STATUS && c->data_seen < c->contexts)
		command_fail(c, EPROTO);
	if (c->tx_end > h->tx.sent) {
		c->answered = true;
		h->tx.answered++;
		return 0;
	}
	command_complete(h, c);
	return 0;
}
