/* The server of a fuzzed session, in the place of the system calls on its socket: the input
 * says what the client receives, what the client sends is checked to be of the protocol.
 *
 * The input's pieces are received one after the other, the next when the client has nothing
 * left to read and would wait; after the last one comes the end of file.  So every session
 * ends, whatever the client waits for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_MARK		"\xa5\xa5|"	/* between pieces of an input */
#define PEER_MARK_SIZE		3

struct piece {
	const uint8_t *p;
	size_t len;
};

/* The pieces that INPUT consists of, from *AT on: fills *RET and moves on.  0 at the end. */
int piece_next(const uint8_t *input, size_t size, size_t *at, struct piece *ret);

/* What the peer knows of the client, for making its next message. */
struct seen {
	uint32_t option;		/* the last one that was sent */
	size_t n;			/* requests so far; the last ones are kept */
	uint64_t cookies[64];
	uint64_t offsets[64];
};

/* Makes the bytes to send from a piece of input, into OUT: their number, at most
 * PEER_MESSAGE_MAX.  *MORE: the next piece is to come together with this one. */
#define PEER_MESSAGE_MAX (1u << 17)
typedef size_t peer_make(const struct piece *in, const struct seen *seen, uint8_t *out,
			 int *more);

/* How the socket behaves: bytes a receive returns at most (0: any), bytes a send takes at
 * most before it says EAGAIN once (0: all), bytes sent before the pipe breaks (0: never).
 * Stubborn: after EAGAIN nothing can be sent until the client has received something, as with
 * a server that answers before it has read everything. */
struct peer_manner {
	size_t receive_max, send_max, break_after;
	bool stubborn;
};

/* One of some manners, by a byte of input; 0 is the usual one. */
struct peer_manner peer_manner(uint8_t byte);

/* Begin a session over INPUT, which must outlive it: the client's descriptor.  MAKE NULL
 * sends pieces as they are. */
int peer_begin(const uint8_t *input, size_t size, const struct peer_manner *manner,
	       peer_make *make);

/* The client has closed the descriptor. */
void peer_end(void);
