/* The relay's work: plain bytes on one socket, TLS records or the same bytes on another, both
 * ways at once, through fixed buffers, until both ways have ended. */
#pragma once

#include <sys/uio.h>

#include "lib/record/control.h"
#include "lib/util/clock.h"

/* A batch is what one system call moves: a request or reply of 256 KiB with its header. */
#define PUMP_RECORDS	17u
#define PUMP_OUT_SIZE	(PUMP_RECORDS * (RECORD_PREFIX_MAX + RECORD_PLAIN_MAX + RECORD_SUFFIX_MAX))
#define PUMP_IN_SIZE	(PUMP_RECORDS * RECORD_MAX)
#define PUMP_PIECES	64u

/* Once one way has ended, how long the other may make no progress. */
#define PUMP_LINGER_USEC (5 * USEC_PER_SEC)

/* From the plain socket to the server.  Its bytes go right to where their records will be. */
struct pump_out {
	struct record_way way;
	size_t first, len;		/* bytes of sealed records that were not sent */
	bool eof, done;
	uint8_t buffer[PUMP_OUT_SIZE];
};

/* From the server to the plain socket.  Records are opened where they were received. */
struct pump_in {
	struct record_way way;
	struct record_control control;
	size_t opened, end;		/* of buffer: bytes opened; bytes received */
	struct iovec pieces[PUMP_PIECES];	/* data that was not delivered */
	size_t piece, n_pieces;
	bool eof, done;
	uint8_t buffer[PUMP_IN_SIZE];
};

struct pump {
	int plain, server;		/* sockets of the caller */
	bool server_hung_up;
	bool raw;			/* no TLS: bytes pass as they are */
	uint64_t linger_usec;
	uint64_t progress_usec;		/* when a byte moved; kept once one way has ended */
	/* Asked for by the caller, called once: when a key whose use is limited was used for
	 * RECORDS of them; before the plain socket is told of the server's end. */
	uint64_t records;
	void (*key_used)(void *userdata);
	void (*ends)(void *userdata);
	void *userdata;
	/* Why it ended; the first cause stays. */
	const char *why;		/* static text, or NULL: */
	bool by_server;			/* ... what the server did */
	int error;			/* errno of the server's socket */
	struct pump_out out;
	struct pump_in in;
};

/* P is memory for it, zeroed; PLAIN does not block.  A STATE of version 0 means no TLS.  0 or
 * -errno; STATE may be wiped then. */
_must_check_ int pump_init(struct pump *p, int plain, int server,
			   const struct nbdd_tls_state *state);
/* Work until the end: why is in P, and both sockets are to be shut down then.  Allocates
 * nothing, waits in poll alone. */
void pump_run(struct pump *p);
/* Wipe keys and data. */
void pump_deinit(struct pump *p);
