#include "lib/io/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/util/fd.h"

static ssize_t plain_send(struct transport *t, const struct iovec *iov, size_t n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t r;

	do
		r = n == 1 ? send(t->fd, iov->iov_base, iov->iov_len,
				  MSG_NOSIGNAL | MSG_DONTWAIT)
			   : sendmsg(t->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static ssize_t plain_recv(struct transport *t, const struct iovec *iov, size_t n, bool wait)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	int flags = wait ? 0 : MSG_DONTWAIT;
	ssize_t r;

	do
		r = n == 1 ? recv(t->fd, iov->iov_base, iov->iov_len, flags)
			   : recvmsg(t->fd, &msg, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static size_t plain_pending(struct transport *t)
{
	return 0;
}

static void plain_close(struct transport *t)
{
	fd_close(t->fd);
}

static const struct transport_ops plain_ops = {
	.send = plain_send,
	.recv = plain_recv,
	.pending = plain_pending,
	.close = plain_close,
};

int transport_plain_own(struct transport *t, int fd, int family)
{
	int off = 0, on = 1;

	if (ioctl(fd, FIONBIO, &off) < 0)
		return -errno;
	/* "Protocol phases": both sides should disable Nagle's algorithm. */
	if (family == AF_INET || family == AF_INET6)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*t = (struct transport) { .ops = &plain_ops, .fd = fd };
	return 0;
}

int transport_plain(struct transport *t, int fd)
{
	struct sockaddr_storage addr = {};
	socklen_t len = sizeof(addr);
	int r = fd_set_cloexec(fd, true);

	if (r < 0)
		return r;
	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		addr.ss_family = AF_UNSPEC;
	return transport_plain_own(t, fd, addr.ss_family);
}

void transport_close(struct transport *t)
{
	if (t->ops)
		t->ops->close(t);
	*t = TRANSPORT_NULL;
}
