/* What the kernel knows of a socket that we hold no descriptor of; part of netlink/nbdk.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* A connected stream socket of this network namespace, by what identifies it: the inode,
 * which fstat(2) tells, and for TCP both its addresses. */
struct nbdk_sock {
	uint64_t inode;			/* 0: none */
	struct sockaddr_storage local, peer;	/* family AF_INET, AF_INET6 or AF_UNIX */
};

struct nbdk_sock_info {
	bool alive;		/* connected, and neither side has shut it down */
	bool sure;		/* false: it is there, and that is all the kernel tells */
	uint32_t rtt_usec, retransmits;	/* TCP */
};

/* Netlink to the kernel's socket diagnosis, or, where that is missing, /proc/net. */
struct nbdk_diag;

/* Also makes the kernel load what it needs for the answers, which later may not be possible:
 * the module's file may be on a device that is away. */
int nbdk_diag_open(struct nbdk_diag **ret);
void nbdk_diag_close(struct nbdk_diag *d);

/* Fill S for the connected socket FD.  0; -errno; -EAFNOSUPPORT: no TCP or Unix socket. */
int nbdk_sock_identify(int fd, struct nbdk_sock *ret);
/* How is it?  One that is not there any more is not alive, surely.  0 or -errno. */
int nbdk_diag_ask(struct nbdk_diag *d, const struct nbdk_sock *s, struct nbdk_sock_info *ret);
/* Abort the connection (SOCK_DESTROY), whoever holds the socket.  0; -EOPNOTSUPP: the kernel
 * cannot (Unix sockets; CONFIG_INET_DIAG_DESTROY); -ENOENT: it is gone. */
int nbdk_diag_abort(struct nbdk_diag *d, const struct nbdk_sock *s);
