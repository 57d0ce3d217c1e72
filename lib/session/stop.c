/* The end in order ("Terminating the transmission phase"). */
#include <errno.h>

#include "lib/session/session.h"

int session_disconnect(struct nbd_handle *h, uint32_t flags)
{
	struct request r = { .flags = (uint16_t)flags, .type = NBD_CMD_DISC };
	uint8_t *p;

	if (h->disconnecting)
		return session_error(h, EINVAL, "cannot request more commands after "
				     "NBD_CMD_DISC");
	p = tx_reserve(&h->tx, h->export.extended_headers ? EXTENDED_REQUEST_SIZE
							   : REQUEST_SIZE);
	if (!p)
		return session_error(h, ENOMEM, "no memory for a request");
	(h->export.extended_headers ? request_pack_extended : request_pack)(p, &r);
	h->disconnecting = true;
	h->stats.chunks_sent++;
	command_kick(h);
	session_send_beside(h, h->tx.queued);
	return 0;
}

/* Take back the requests of which nothing was sent; they fail with ESHUTDOWN. */
static void abandon_pending(struct nbd_handle *h)
{
	uint64_t first = h->tx.queued;

	for (uint32_t i = 0; i < h->commands.n_slots; i++) {
		struct command *c =
			&h->commands.slabs[i / SLAB_COMMANDS][i % SLAB_COMMANDS];

		if (c->state == COMMAND_IN_FLIGHT && c->tx_start >= h->tx.sent)
			first = MIN(first, c->tx_start);
	}
	tx_rewind(&h->tx, first);
	commands_abort(h, first, ESHUTDOWN);
}

static bool is_connected(struct nbd_handle *h)
{
	return atomic_load(&h->phase) == PHASE_TRANSMISSION;
}

int session_shutdown(struct nbd_handle *h, uint32_t flags)
{
	if (flags & LIBNBD_SHUTDOWN_ABANDON_PENDING && !h->disconnecting)
		abandon_pending(h);
	while (is_connected(h) && !h->disconnecting && atomic_load(&h->in_flight))
		if (session_poll(h, -1, -1) < 0)
			return -1;
	if (is_connected(h) && !h->disconnecting && session_disconnect(h, 0) < 0)
		return -1;
	while (is_connected(h))
		if (session_poll(h, -1, -1) < 0)
			return -1;
	return 0;
}
