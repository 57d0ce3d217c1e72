/* Progress of a session: what to wait for, and what to do when it is there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lib/util/macro.h"

struct nbd_handle;

/* Each returns 0 (session_poll: 1 progress or fd ready, 0 time is up), or
 * -1 with the error set. */
_must_check_ int session_notify_read(struct nbd_handle *h);
_must_check_ int session_notify_write(struct nbd_handle *h);
_must_check_ int session_poll(struct nbd_handle *h, int extra_fd, int timeout_msec);
/* Receive; the lock is released while it waits.  As transport_ops.recv. */
ssize_t session_receive(struct nbd_handle *h, const struct iovec *iov, size_t n, bool wait);
/* Poll until the handshake or the option under way has come to its end. */
_must_check_ int session_wait_connected(struct nbd_handle *h);
/* Poll until CMD is complete: 0, or -1. */
_must_check_ int session_wait_command(struct nbd_handle *h, uint64_t cookie);
/* The descriptor to poll, -errno when there is none. */
_must_check_ int session_fd(struct nbd_handle *h);
/* TLS: wait for the socket's bytes, the lock released; as transport_ops.fill. */
ssize_t session_fill(struct nbd_handle *h);
void session_update_direction(struct nbd_handle *h);

/* Something has changed for threads that wait beside the one on the socket. */
void session_wake(struct nbd_handle *h);
/* While another thread waits on the socket: until it has taken what is queued up to END. */
void session_send_beside(struct nbd_handle *h, uint64_t end);

/* What the user is to wait for: LIBNBD_AIO_DIRECTION_*.  Called without the lock. */
unsigned session_direction(struct nbd_handle *h);

/* Is the user between a notification and asking for the direction, as in every round of his
 * loop before, and is this request likely to be one of several?  Then they wait for each
 * other: what is queued makes the direction tell him to come back at once. */
bool session_in_loop(struct nbd_handle *h);
