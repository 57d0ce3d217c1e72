/* A connected byte stream.  The plain one is a socket in blocking mode: the library asks
 * for non-blocking calls by MSG_DONTWAIT, so that a wait that may last for ever is one
 * system call, and the kernel's nbd driver gets the socket as it wants it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lib/util/macro.h"

struct transport;
struct tls;

struct transport_ops {
	/* Send what the socket takes without waiting: bytes, or -errno (-EAGAIN: full). */
	ssize_t (*send)(struct transport *t, const struct iovec *iov, size_t n);
	/* Receive: bytes, 0 at end of file, or -errno (-EAGAIN: nothing there).  WAIT: until
	 * something is there. */
	ssize_t (*recv)(struct transport *t, const struct iovec *iov, size_t n, bool wait);
	/* Bytes received already that poll(2) on the socket does not show. */
	size_t (*pending)(struct transport *t);
	/* Below: of TLS only, NULL for the plain one.  gnutls wants one thread at a time, so
	 * its recv never waits; instead the session's lock is released around this: wait for
	 * bytes of the socket and keep them.  Bytes, 0 at end of file, or -errno. */
	ssize_t (*fill)(struct transport *t);
	/* Bytes that `send` took and the socket has not. */
	bool (*unsent)(struct transport *t);
	int (*flush)(struct transport *t);	/* 0, or -errno (-EAGAIN: full) */
	const char *(*message)(struct transport *t);	/* what failed, or NULL */
	void (*close)(struct transport *t);
};

struct transport {
	const struct transport_ops *ops;	/* NULL: not connected */
	int fd;
	struct tls *tls;			/* tls.h; NULL: plain */
};

#define TRANSPORT_NULL ((struct transport){ .fd = -1 })

/* Take over FD, a connected stream socket of unknown settings: blocking mode, close-on-exec,
 * for TCP no delay.  0 or -errno; at an error FD is still the caller's. */
_must_check_ int transport_plain(struct transport *t, int fd);

/* The same for a socket of FAMILY that this library made, close-on-exec. */
_must_check_ int transport_plain_own(struct transport *t, int fd, int family);

static inline bool transport_unsent(struct transport *t)
{
	return t->tls && t->ops->unsent(t);
}

/* Close it if it is open. */
void transport_close(struct transport *t);
