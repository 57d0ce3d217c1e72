/* The pool of commands: slots, cookies, completion. */
#include "lib/session/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/session.h"

static int add_slab(struct nbd_handle *h)
{
	struct commands *k = &h->commands;
	uint32_t n = k->n_slots / SLAB_COMMANDS;
	struct command *slab, **slabs;

	if (k->n_slots >= COOKIE_SLOTS_MAX)
		return -EBUSY;
	/* The table grows by doubling: at each power of two. */
	if ((n & (n - 1)) == 0) {
		slabs = realloc(k->slabs, (n ? 2 * n : 1) * sizeof(struct command *));
		if (!slabs)
			return -ENOMEM;
		k->slabs = slabs;
	}
	slab = calloc(SLAB_COMMANDS, sizeof(*slab));
	if (!slab)
		return -ENOMEM;
	k->slabs[n] = slab;
	for (uint32_t i = SLAB_COMMANDS; i-- > 0;) {
		slab[i].slot = k->n_slots + i;
		slab[i].cookie = UINT64_C(1) << COOKIE_SLOT_BITS | slab[i].slot;
		slab[i].next = k->free;
		k->free = &slab[i];
	}
	k->n_slots += SLAB_COMMANDS;
	return 0;
}

struct command *command_new(struct nbd_handle *h)
{
	struct command *c;

	if (!h->commands.free && add_slab(h) < 0)
		return NULL;
	c = h->commands.free;
	h->commands.free = c->next;
	c->state = COMMAND_IN_FLIGHT;
	c->next = NULL;
	return c;
}

struct command *command_find(struct nbd_handle *h, uint64_t cookie)
{
	uint32_t slot = cookie & (COOKIE_SLOTS_MAX - 1);
	struct command *c;

	if (slot >= h->commands.n_slots)
		return NULL;
	c = &h->commands.slabs[slot / SLAB_COMMANDS][slot % SLAB_COMMANDS];
	return c->cookie == cookie && c->state != COMMAND_FREE ? c : NULL;
}

static void free_report(struct command *c)
{
	switch (c->report) {
	case REPORT_CHUNK:
		CALLBACK_FREE(c->chunk);
		break;
	case REPORT_EXTENT:
		CALLBACK_FREE(c->extent);
		break;
	case REPORT_EXTENT64:
		CALLBACK_FREE(c->extent64);
		break;
	}
	c->report = REPORT_NONE;
}

/* What is not needed once the reply is in. */
static void free_parts(struct command *c)
{
	if (c->iov || c->payload || c->ids_seen) {
		free(c->iov);
		free(c->payload);
		free(c->ids_seen);
		c->iov = NULL;
		c->payload = NULL;
		c->ids_seen = NULL;
	}
}

/* Callbacks live as long as their command: until it is retired. */
static void free_callbacks(struct command *c)
{
	if (c->report != REPORT_NONE)
		free_report(c);
	CALLBACK_FREE(c->completion);
}

void command_retire(struct nbd_handle *h, struct command *c)
{
	struct commands *k = &h->commands;
	uint64_t uses = (c->cookie >> COOKIE_SLOT_BITS) % COOKIE_USES_MAX + 1;

	if (c->state == COMMAND_COMPLETE) {
		*(c->prev ? &c->prev->next : &k->done_first) = c->next;
		*(c->next ? &c->next->prev : &k->done_last) = c->prev;
		c->prev = NULL;
	}
	free_parts(c);
	free_callbacks(c);
	c->cookie = uses << COOKIE_SLOT_BITS | c->slot;
	c->state = COMMAND_FREE;
	c->next = k->free;
	k->free = c;
}

void command_fail(struct command *c, int error)
{
	if (!c->error)
		c->error = error;
}

/* Only the holder of the lock writes, so no atomic read-modify-write is needed. */
void in_flight_add(struct nbd_handle *h, int by)
{
	unsigned n = atomic_load_explicit(&h->in_flight, memory_order_relaxed);

	atomic_store_explicit(&h->in_flight, n + (unsigned)by, memory_order_relaxed);
}

/* Hand the result to the user's callback: is the command to be retired?  A callback that
 * returns -1 may put another error in the place of the command's, but not take it back. */
static bool report_completion(struct command *c)
{
	int error = c->error, r;

	if (!c->completion.callback)
		return false;
	r = CALLBACK_CALL(c->completion, &error);
	if (r == -1 && error)
		c->error = error;
	return r == 1;
}

void command_complete(struct nbd_handle *h, struct command *c)
{
	struct commands *k = &h->commands;

	in_flight_add(h, -1);
	free_parts(c);
	if (report_completion(c) && !c->sync) {
		command_retire(h, c);
		return;
	}
	c->state = COMMAND_COMPLETE;
	c->next = NULL;
	c->prev = k->done_last;
	*(k->done_last ? &k->done_last->next : &k->done_first) = c;
	k->done_last = c;
}

void commands_abort(struct nbd_handle *h, uint64_t from, int error)
{
	for (uint32_t i = 0; i < h->commands.n_slots; i++) {
		struct command *c =
			&h->commands.slabs[i / SLAB_COMMANDS][i % SLAB_COMMANDS];

		if (c->state != COMMAND_IN_FLIGHT || c->tx_start < from)
			continue;
		if (!c->answered) {
			command_never_answered(c);
			command_fail(c, error);
		}
		command_complete(h, c);
	}
}

void commands_free(struct nbd_handle *h)
{
	struct commands *k = &h->commands;

	for (uint32_t i = 0; i < k->n_slots; i++) {
		struct command *c = &k->slabs[i / SLAB_COMMANDS][i % SLAB_COMMANDS];

		if (c->state == COMMAND_FREE)
			continue;
		free_parts(c);
		free_callbacks(c);
	}
	for (uint32_t i = 0; i < k->n_slots / SLAB_COMMANDS; i++)
		free(k->slabs[i]);
	free(k->slabs);
	*k = (struct commands) {};
}
