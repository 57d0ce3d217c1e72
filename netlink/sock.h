/* Private to netlink/: a netlink socket of libnl, received from without allocation. */
#pragma once

#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/types.h>

#include "lib/util/macro.h"

/* A bound socket of PROTOCOL (NETLINK_*).  0 or -errno. */
_must_check_ int sock_open(int protocol, struct nl_sock **ret);

/* With FD, a bound socket of PROTOCOL, which is the result's, or closed on failure.  What an
 * earlier owner has not read is thrown away. */
_must_check_ int sock_open_fd(int protocol, int fd, struct nl_sock **ret);

/* Make SOCK a listener that never blocks: its receive buffer holds about BYTES. */
_must_check_ int sock_listen(struct nl_sock *sock, int bytes);

_must_check_ int sock_join(struct nl_sock *sock, int group);

/* Receive one datagram of the kernel's into BUF; datagrams of other processes are skipped.
 * Returns its length or -errno: -EAGAIN when nothing waits (listener), -ENOBUFS when the
 * kernel had to drop datagrams, -EMSGSIZE for one of more than SIZE bytes. */
_must_check_ ssize_t sock_receive(struct nl_sock *sock, void *buf, size_t size);

/* A result of libnl's as -errno.  libnl folds several errno values into one of its own, so
 * this is for setting a socket up only; answers of the kernel keep their own number. */
_must_check_ int sock_errno(int nle);
