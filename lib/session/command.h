/* Commands: a pool of slots that cookies point into. */
#pragma once

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/util/macro.h"

struct nbd_handle;

/* A cookie is the slot's number and, above it, how often the slot was used, from 1: so it
 * is never 0, never negative, found in one step, and a stale one is recognised. */
#define COOKIE_SLOT_BITS	24
#define COOKIE_SLOTS_MAX	(1u << COOKIE_SLOT_BITS)
#define COOKIE_USES_MAX		((UINT64_C(1) << (63 - COOKIE_SLOT_BITS)) - 1)

#define SLAB_COMMANDS		16	/* slots that are allocated together */

enum command_state {
	COMMAND_FREE,
	COMMAND_IN_FLIGHT,	/* queued or sent, its reply is not in yet */
	COMMAND_COMPLETE,	/* waits to be retired by nbd_aio_command_completed */
};

enum report {
	REPORT_NONE,
	REPORT_CHUNK,		/* nbd_pread_structured */
	REPORT_EXTENT,		/* nbd_block_status */
	REPORT_EXTENT64,
};

struct command {
	uint64_t cookie;		/* of its present or next use */
	uint64_t offset, count;
	uint8_t *buf;			/* where read data goes; NULL with iov */
	uint64_t data_seen;		/* bytes of content chunks, extents' contexts */
	uint64_t tx_start, tx_end;	/* its place in the stream of bytes sent */
	int error;			/* errno; the first one stays */
	uint16_t flags;
	uint8_t type;			/* enum nbd_command */
	uint8_t state;			/* enum command_state */
	uint8_t report;			/* enum report */
	bool sync;			/* a call waits for it */
	bool zeroed;			/* the buffer of a read needs no zeroing any more */
	bool answered;			/* reply complete, but not all of it sent yet */
	uint32_t chunks;		/* chunks of the reply so far */
	uint32_t slot;
	uint32_t contexts;		/* expected: block status chunks */
	nbd_completion_callback completion;
	union {
		nbd_chunk_callback chunk;
		nbd_extent_callback extent;
		nbd_extent64_callback extent64;
	};
	struct iovec *iov;		/* a copy, of a vectored read */
	size_t iovcnt;
	uint8_t *payload;		/* of a filtered block status request */
	uint32_t *ids_seen;		/* context ids of chunks so far */
	struct command *next, *prev;
};

struct commands {
	struct command **slabs;
	uint32_t n_slots;
	struct command *free;
	struct command *done_first, *done_last;	/* complete, in order of completion */
};

/* What a request is made of; zero what does not apply. */
struct command_spec {
	uint8_t type;
	uint8_t report;
	bool sync;
	uint32_t flags;
	uint64_t offset, count;
	void *buf;			/* read */
	const void *data;		/* write */
	const struct iovec *iov;	/* read or write, instead of those */
	size_t iovcnt;
	char **contexts;		/* filtered block status */
	nbd_completion_callback *completion;
	void *callback;			/* of the kind that report says */
};

/* Check the request against the strict mode and queue it; it goes out at once when the
 * handle is idle.  The cookie, or -1 with the error set. */
_must_check_ int64_t command_issue(struct nbd_handle *h, const struct command_spec *spec);

/* A read fails before its request is queued: nbd_set_pread_initialize holds for it, too. */
void command_not_begun(struct nbd_handle *h, void *buf, size_t count);
void command_not_begun_vector(struct nbd_handle *h, const struct iovec *iov, size_t n);

/* Send what is queued, as far as the socket takes it now. */
void command_kick(struct nbd_handle *h);

/* The most bytes of one read or write (LIBNBD_STRICT_PAYLOAD). */
uint64_t payload_limit(struct nbd_handle *h);

/* The same, and wait for the reply: 0 or -1 with the error set. */
_must_check_ int command_run(struct nbd_handle *h, struct command_spec *spec);

/* The command with this cookie, NULL when it is unknown or retired. */
struct command *command_find(struct nbd_handle *h, uint64_t cookie);

/* A command, its fields cleared but for the cookie; NULL when out of memory or slots. */
struct command *command_new(struct nbd_handle *h);
void command_retire(struct nbd_handle *h, struct command *c);

/* The reply is complete: tell the user. */
void command_complete(struct nbd_handle *h, struct command *c);
/* Record an error unless there is one. */
void command_fail(struct command *c, int error);

void in_flight_add(struct nbd_handle *h, int by);

/* Fail all commands in flight with ERROR; those from TX position FROM on only. */
void commands_abort(struct nbd_handle *h, uint64_t from, int error);
void commands_free(struct nbd_handle *h);
