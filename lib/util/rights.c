#include "lib/util/rights.h"

#include <errno.h>
#include <sys/socket.h>

#include "lib/util/macro.h"

#define DRAIN_CHUNK 4096

/* Where it is another number, the header has it, or there is none. */
#if !defined(SO_PASSRIGHTS) && !defined(__hppa__) && !defined(__sparc__)
#define SO_PASSRIGHTS 83
#endif

static const struct {
	int option, value;
} settings[] = {
#ifdef SO_PASSRIGHTS
	{ SO_PASSRIGHTS, 0 },
#endif
	/* What is out of band is passed over by a look, and dropped by what follows it. */
	{ SO_OOBINLINE, 1 },
	/* Of these, too, MSG_CTRUNC would tell; systemd may have set them. */
	{ SO_PASSCRED, 0 }, { SO_PASSSEC, 0 },
};

void rights_refuse(int sock)
{
	/* An older kernel does not know them all. */
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		(void)setsockopt(sock, SOL_SOCKET, settings[i].option, &settings[i].value,
				 sizeof(settings[i].value));
}

/* The kernel makes duplicates for it, and says that there was no room for them. */
static ssize_t look(int sock, void *buf, size_t len)
{
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return msg.msg_flags & MSG_CTRUNC ? -EBADMSG : n;
}

ssize_t rights_recv(int sock, void *buf, size_t len)
{
	ssize_t n = look(sock, buf, len);

	if (n <= 0)
		return n;
	/* No more than was seen: what comes meanwhile stands behind it. */
	n = recv(sock, buf, (size_t)n, MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

bool rights_drain(int sock)
{
	char buf[DRAIN_CHUNK];
	ssize_t n;

	shutdown(sock, SHUT_RD);
	do
		n = rights_recv(sock, buf, sizeof(buf));
	while (n > 0 || n == -EINTR);
	return n != -EBADMSG;
}
