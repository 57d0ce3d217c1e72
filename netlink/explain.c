/* Why did connect fail?  The driver tells its reasons to the kernel log only. */
#include <errno.h>
#include <linux/nbd.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/util/macro.h"
#include "netlink/nbdk.h"

static int socket_option(int fd, int option)
{
	int value = -1;
	socklen_t len = sizeof value;

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

static bool no_size(const struct nbdk_connect *c)
{
	return c->size == 0;
}

static bool no_identifier(const struct nbdk_connect *c)
{
	return !c->identifier || !*c->identifier ||
	       strlen(c->identifier) > NBDK_IDENTIFIER_MAX;
}

static bool no_sockets(const struct nbdk_connect *c)
{
	return c->n_sockets == 0;
}

static bool many_sockets(const struct nbdk_connect *c)
{
	return c->n_sockets > NBDK_SOCKETS_MAX;
}

static bool bad_block_size(const struct nbdk_connect *c)
{
	return c->block_size < 512 || c->block_size > 4096 ||
	       (c->block_size & (c->block_size - 1)) != 0;
}

static bool not_stream(const struct nbdk_connect *c)
{
	for (size_t i = 0; i < c->n_sockets; i++) {
		int domain = socket_option(c->sockets[i], SO_DOMAIN);

		if (socket_option(c->sockets[i], SO_TYPE) != SOCK_STREAM ||
		    (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX))
			return true;
	}
	return false;
}

static bool not_multi_conn(const struct nbdk_connect *c)
{
	return c->n_sockets > 1 && !(c->server_flags & NBD_FLAG_CAN_MULTI_CONN);
}

static bool high_index(const struct nbdk_connect *c)
{
	/* MINORBITS is 20; with max_part=16, the default, each device takes 32 minors. */
	return c->index != NBDK_INDEX_ANY && (c->index < 0 || c->index >= 1 << 15);
}

/* EINVAL: the first row that fits what was asked. */
static const struct {
	bool (*fits)(const struct nbdk_connect *c);
	const char *text;
} invalid[] = {
	{ no_size, "the export has no size: the kernel takes no empty device" },
	{ no_sockets, "no socket was given" },
	{ many_sockets, "more sockets than the 16 of one call" },
	{ no_identifier, "the identifier must have 1 to 255 bytes" },
	{ bad_block_size, "the block size must be a power of two from 512 to 4096" },
	{ not_stream, "the kernel takes only stream sockets of TCP or Unix domain" },
	{ not_multi_conn, "the server does not allow several connections to this export" },
	{ high_index, "the device index is higher than the kernel's nbd driver can number" },
};

static const struct {
	int error;
	const char *text;
} reasons[] = {
	{ EBUSY, "the device is connected already, or another program has it open" },
	{ EBADF, "a socket was closed before the kernel could take it" },
	{ ENOTSOCK, "a file descriptor that is not a socket was given" },
	{ EPERM, "only root (CAP_SYS_ADMIN) may connect nbd devices" },
	{ EACCES, "only root (CAP_SYS_ADMIN) may connect nbd devices" },
	{ ENOENT, "this kernel has no nbd driver (modprobe nbd)" },
	{ ENOMEM, "the kernel is out of memory" },
	{ ENOSPC, "the kernel has no free nbd device" },
	{ EINVAL, "the kernel's nbd driver refused the device; its log (dmesg) says why" },
};

const char *nbdk_connect_strerror(int r, const struct nbdk_connect *c)
{
	if (r == -EINVAL)
		for (size_t i = 0; i < ARRAY_SIZE(invalid); i++)
			if (invalid[i].fits(c))
				return invalid[i].text;
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (r == -reasons[i].error)
			return reasons[i].text;
	return "the kernel's nbd driver could not set the device up; see its log (dmesg)";
}
