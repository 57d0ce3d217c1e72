/* A peer in the place of the system calls on a client's socket: wrap.c leads those on its
 * descriptor to these four, which lib_peer.c and tls_peer.c each have, and others to the
 * kernel. */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Is this the client's socket? */
bool peer_is(int fd);
/* What send and sendmsg do there: how much was taken, or -1 and errno. */
ssize_t peer_take(const struct iovec *iov, size_t n);
/* What recv and recvmsg do there, with their FLAGS. */
ssize_t peer_give(const struct iovec *iov, size_t n, int flags);
/* What poll does on it alone. */
int peer_poll(struct pollfd *fd, int timeout);
