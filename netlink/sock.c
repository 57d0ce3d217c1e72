#include "netlink/sock.h"

#include <errno.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/util/fd.h"

int sock_errno(int nle)
{
	static const int table[NLE_MAX + 1] = {
		[NLE_INTR] = EINTR, [NLE_BAD_SOCK] = EBADF, [NLE_AGAIN] = EAGAIN,
		[NLE_NOMEM] = ENOMEM, [NLE_EXIST] = EEXIST, [NLE_INVAL] = EINVAL,
		[NLE_RANGE] = ERANGE, [NLE_MSGSIZE] = EMSGSIZE,
		[NLE_OPNOTSUPP] = EOPNOTSUPP, [NLE_AF_NOSUPPORT] = EAFNOSUPPORT,
		[NLE_OBJ_NOTFOUND] = ENOENT, [NLE_BUSY] = EBUSY,
		[NLE_PROTO_MISMATCH] = EPROTONOSUPPORT, [NLE_NOACCESS] = EACCES,
		[NLE_PERM] = EPERM, [NLE_NODEV] = ENODEV,
	};
	unsigned n = nle < 0 ? -(unsigned)nle : (unsigned)nle;

	if (nle >= 0)
		return 0;
	return n < ARRAY_SIZE(table) && table[n] ? -table[n] : -EIO;
}

int sock_open(int protocol, struct nl_sock **ret)
{
	struct nl_sock *sock = nl_socket_alloc();
	int r;

	if (!sock)
		return -ENOMEM;
	r = sock_errno(nl_connect(sock, protocol));
	if (r < 0) {
		nl_socket_free(sock);
		return r;
	}
	*ret = sock;
	return 0;
}

int sock_open_fd(int protocol, int fd, struct nl_sock **ret)
{
	struct nl_sock *sock = nl_socket_alloc();
	char rest[64];
	int r = sock ? sock_errno(nl_socket_set_fd(sock, protocol, fd)) : -ENOMEM;

	if (r < 0) {
		fd_close(fd);
		if (sock)
			nl_socket_free(sock);
		return r;
	}
	while (recv(fd, rest, sizeof rest, MSG_DONTWAIT) >= 0 || errno == ENOBUFS)
		;
	*ret = sock;
	return 0;
}

int sock_listen(struct nl_sock *sock, int bytes)
{
	int fd = nl_socket_get_fd(sock);

	/* A small buffer only means that events are lost sooner, which is reported. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	return fd_set_nonblock(fd, true);
}

int sock_join(struct nl_sock *sock, int group)
{
	if (setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group,
		       sizeof group) < 0)
		return -errno;
	return 0;
}

ssize_t sock_receive(struct nl_sock *sock, void *buf, size_t size)
{
	for (;;) {
		struct sockaddr_nl from = { 0 };
		socklen_t len = sizeof from;
		ssize_t n = recvfrom(nl_socket_get_fd(sock), buf, size, MSG_TRUNC,
				     (struct sockaddr *)&from, &len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		/* Privileged processes can write to our address; the kernel's is 0. */
		if (from.nl_pid != 0)
			continue;
		return (size_t)n > size ? -EMSGSIZE : n;
	}
}
