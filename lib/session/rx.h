/* Receiving in the transmission phase. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/util/buffer.h"
#include "lib/wire/message.h"

struct nbd_handle;
struct command;

/* The longest header with the fixed part of its payload that is parsed in one piece. */
#define RX_HEADER_MAX	(EXTENDED_CHUNK_SIZE + 12)

/* Buffers of a vectored read that one receive fills. */
#define RX_IOV_MAX	64

struct rx {
	uint8_t carry[RX_HEADER_MAX];	/* a header of which the rest is awaited */
	size_t carry_len;
	atomic_bool partial;		/* a part of a message is awaited */
	/* The payload that is being received. */
	struct command *command;
	struct reply reply;		/* its header */
	uint8_t *dst;			/* where the rest goes */
	size_t left;			/* bytes of it */
	size_t iov_index, iov_offset;	/* dst of a vectored read, when it is NULL */
	bool gather;			/* it goes to `payload`, to be acted on when complete */
	uint64_t to_gather;		/* bytes of it still to come */
	struct buffer payload;
	uint64_t content_offset;	/* of the data chunk under way, for its callback */
	uint64_t content_length;
};

/* Receive once and act on all that came.  WAIT: until something comes.  Bytes received, 0 at
 * end of file, -errno (-EAGAIN: nothing there), or -EPROTO with the error set when the
 * server broke the protocol. */
_must_check_ ssize_t rx_receive(struct nbd_handle *h, bool wait);

/* Act on LEN bytes at P.  0, or -EPROTO with the error set. */
_must_check_ int rx_feed(struct nbd_handle *h, const uint8_t *p, size_t len);

/* chunks.c: the message whose header is h->rx.reply, of command C.  P points at what
 * follows the header, of which chunk_prefix() bytes are there.  0 or -EPROTO. */
size_t chunk_prefix(const struct reply *r);
_must_check_ int chunk_begin(struct nbd_handle *h, struct command *c, const uint8_t *p);
/* The payload is complete. */
_must_check_ int chunk_end(struct nbd_handle *h, struct command *c);
/* The last message of the reply has been dealt with. */
_must_check_ int reply_end(struct nbd_handle *h, struct command *c);

/* The connection is gone: a read whose reply has not begun, or is under way, leaves no stale
 * memory in its buffer. */
void command_never_answered(struct command *c);
void rx_abandon(struct nbd_handle *h);

/* Zero LEN bytes at AT of the destination of C. */
void command_zero(struct command *c, uint64_t at, uint64_t len);

/* extents.c: the block status chunk in h->rx.payload. */
_must_check_ int extents_deliver(struct nbd_handle *h, struct command *c);

/* The server broke the protocol: error_set and -EPROTO. */
#define rx_broken(h, ...) (session_error((h), EPROTO, __VA_ARGS__), -EPROTO)
