/* Block status chunks ("NBD_CMD_BLOCK_STATUS", "NBD_REPLY_TYPE_BLOCK_STATUS"). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/session.h"

/* The longest extent that a 32-bit callback is told of: whole sectors. */
#define EXTENT32_MAX	((uint64_t)UINT32_MAX & ~UINT64_C(511))

/* Is this the first chunk for context ID in this reply? */
static int note_context(struct nbd_handle *h, struct command *c, uint32_t id)
{
	if (!c->ids_seen) {
		c->ids_seen = calloc(c->contexts, sizeof(*c->ids_seen));
		if (!c->ids_seen)
			return rx_broken(h, "no memory for a block status reply");
	}
	for (uint64_t i = 0; i < c->data_seen; i++)
		if (c->ids_seen[i] == id)
			return rx_broken(h, "server sent the status of context %" PRIu32
					 " twice", id);
	if (c->data_seen == c->contexts)
		return rx_broken(h, "server sent the status of more than the %" PRIu32
				 " contexts that were asked for", c->contexts);
	c->ids_seen[c->data_seen++] = id;
	return 0;
}

/* Turn the extents at P into host order, into TO. */
static void unpack_wide(const uint8_t *p, size_t n, bool wide, nbd_extent *to)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t length = wide ? be64_get(p + 16 * i) : be32_get(p + 8 * i);
		uint64_t flags = wide ? be64_get(p + 16 * i + 8) : be32_get(p + 8 * i + 4);

		to[i] = (nbd_extent) { length, flags };
	}
}

/* None has length 0, and they end before 2^64.  Servers exist that send more extents than
 * the request covers; those are passed on. */
static int check_extents(struct nbd_handle *h, struct command *c, const nbd_extent *e,
			 size_t n)
{
	uint64_t end = c->offset;

	for (size_t i = 0; i < n; i++) {
		if (!e[i].length)
			return rx_broken(h, "server sent an extent of length 0");
		if (__builtin_add_overflow(end, e[i].length, &end))
			return rx_broken(h, "server sent an extent of length %" PRIu64
					 ", beyond the end of all offsets", e[i].length);
	}
	return 0;
}

/* For a 32-bit callback: lengths that do not fit are cut; what follows a cut extent would no
 * longer be adjacent, so the list ends there.  -EOVERFLOW for flags that do not fit. */
static int narrow(const nbd_extent *e, size_t *n, uint32_t *to)
{
	for (size_t i = 0; i < *n; i++) {
		nbd_extent x = e[i];	/* TO may lie over E */

		if (x.flags > UINT32_MAX) {
			if (i == 0)
				return -EOVERFLOW;
			*n = i;
			break;
		}
		to[2 * i] = (uint32_t)MIN(x.length, EXTENT32_MAX);
		to[2 * i + 1] = (uint32_t)x.flags;
		if (x.length > EXTENT32_MAX)
			*n = i + 1;
	}
	return 0;
}

static int report32(struct command *c, const char *name, nbd_extent *e, size_t n)
{
	uint32_t *entries = (uint32_t *)e;	/* in place: half as big */
	int error = c->error, r;

	r = narrow(e, &n, entries);
	if (r < 0)
		return -r;
	if (CALLBACK_CALL(c->extent, name, c->offset, entries, 2 * n, &error) == -1)
		return error ? error : EPROTO;
	return 0;
}

static int report64(struct command *c, const char *name, nbd_extent *e, size_t n)
{
	int error = c->error;

	if (CALLBACK_CALL(c->extent64, name, c->offset, e, n, &error) == -1)
		return error ? error : EPROTO;
	return 0;
}

int extents_deliver(struct nbd_handle *h, struct command *c)
{
	struct rx *rx = &h->rx;
	bool wide = rx->reply.type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
	size_t head = wide ? 8 : 4, each = wide ? 16 : 8;
	size_t n = (rx->payload.len - head) / each;
	uint32_t id = be32_get(rx->payload.data);
	const struct meta_context *context = meta_by_id(&h->meta, id);
	nbd_extent *e;
	int r;

	if (!context)
		return rx_broken(h, "server sent the status of unknown context %" PRIu32, id);
	if (wide && be32_get(rx->payload.data + 4) != n)
		return rx_broken(h, "server announced %" PRIu32 " extents and sent %zu",
				 be32_get(rx->payload.data + 4), n);
	r = note_context(h, c, id);
	if (r < 0)
		return r;
	e = malloc(n * sizeof(*e));
	if (!e)
		return rx_broken(h, "no memory for %zu extents", n);
	unpack_wide(rx->payload.data + head, n, wide, e);
	r = check_extents(h, c, e, n);
	/* Also after a failure the user hears of the contexts that follow. */
	if (r == 0 && c->extent.callback)
		command_fail(c, c->report == REPORT_EXTENT64
				? report64(c, context->name, e, n)
				: report32(c, context->name, e, n));
	free(e);
	return r;
}
