/* Sending: what is queued leaves in as few system calls as the kernel allows. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/util/macro.h"

struct nbd_handle;
struct command;
struct request;

/* Memory kept between bursts. */
#define TX_HEADERS_KEEP		8192		/* bytes: some 290 requests */
#define TX_IOV_KEEP		512		/* entries */

/* Headers gather in one flat buffer, so that a run of requests without payload is one piece
 * for the kernel; payloads stay where the user has them. */
struct tx {
	uint8_t *headers;
	size_t headers_len, headers_size;
	struct iovec *iov;		/* what to send, from iov_first on */
	size_t iov_first, iov_len, iov_size;
	uint64_t queued, sent;		/* bytes ever */
	int error;			/* errno of a send that failed, told at the next poll */
	unsigned answered;		/* commands whose reply came before all was sent */
};

/* Append bytes that are copied, or LEN bytes at DATA that must live until they are sent.
 * 0 or -ENOMEM; nothing is queued then. */
_must_check_ int tx_append(struct tx *tx, const void *data, size_t len);
_must_check_ int tx_append_payload(struct tx *tx, const void *data, size_t len);

/* Room for a header of LEN bytes at the end of the queue; NULL when out of memory.  It is
 * queued by this. */
uint8_t *tx_reserve(struct tx *tx, size_t len);

/* Take back what was queued after tx->queued was QUEUED (nothing of it was sent). */
void tx_rewind(struct tx *tx, uint64_t queued);

/* Send what the socket takes.  0, or -errno (-EAGAIN: the socket is full). */
int tx_flush(struct nbd_handle *h);

static inline bool tx_pending(const struct tx *tx)
{
	return tx->iov_first != tx->iov_len;
}

/* Anything that waits for the socket to take it. */
bool tx_waiting(struct nbd_handle *h);

void tx_free(struct tx *tx);
