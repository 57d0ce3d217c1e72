/* Does the kernel's TLS carry NBD?  One read shows it before a device is. */
#include <endian.h>
#include <errno.h>
#include <linux/nbd.h>
#include <linux/tls.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "daemon/ktls.h"
#include "daemon/tls_plan.h"
#include "lib/util/macro.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define BLOCK_MAX	4096u
#define BLOCK_MIN	512u
#define RECORD_MAX	16384u
#define TICKETS_MAX	64		/* records without data that are read over */

/* RFC 8446, B.1 and B.3 */
enum { RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23 };
enum { NEW_SESSION_TICKET = 4, KEY_UPDATE = 24 };

static int _printf_(3, 4) fail(char *why, int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, TLS_WHY_MAX, format, ap);
	va_end(ap);
	return r;
}

/* A record without data: 0 when it may be read over. */
static int control_record(int type, const uint8_t *p, size_t len, char *why)
{
	if (type == RECORD_ALERT && len >= 2)
		return fail(why, -ECONNRESET, "TLS: server sent alert %u", p[1]);
	if (type != RECORD_HANDSHAKE)
		return fail(why, -EPROTO, "TLS: server sent a record of type %d", type);
	/* Messages: a byte of type, three of length. */
	while (len >= 4) {
		size_t size = 4 + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);

		if (p[0] == KEY_UPDATE)
			return fail(why, -EKEYREJECTED, "TLS: server changed its key at once");
		if (p[0] != NEW_SESSION_TICKET || size > len)
			break;
		p += size;
		len -= size;
	}
	return len ? fail(why, -EPROTO, "TLS: server sent a handshake message that nobody "
			  "expected") : 0;
}

/* Some bytes of data; 0 when a record without data was read over; or -errno, with WHY filled
 * unless it is -EAGAIN. */
static ssize_t receive(int fd, void *buf, size_t len, int flags, char *why)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint8_t))];
	struct iovec iov = { buf, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	const struct cmsghdr *c;
	int type = RECORD_DATA;
	ssize_t r;

	do
		r = recvmsg(fd, &m, flags);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN ? -EAGAIN
			: fail(why, -errno, "TLS: the kernel cannot read what the server "
			       "sends: %s", strerror(errno));
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_TLS && c->cmsg_type == TLS_GET_RECORD_TYPE)
		type = *CMSG_DATA(c);
	if (type != RECORD_DATA)
		return control_record(type, buf, (size_t)r, why);
	if (r == 0)
		return fail(why, -ECONNRESET, "server hung up when the kernel took over");
	return r;
}

/* What has come; room for a record behind what is asked for. */
struct input {
	size_t got;
	uint8_t data[sizeof(struct nbd_reply) + BLOCK_MAX + RECORD_MAX];
};

/* Until LEN bytes are there. */
static int receive_all(int fd, struct input *in, size_t len, char *why)
{
	for (unsigned i = 0; in->got < len && i < TICKETS_MAX;) {
		ssize_t r = receive(fd, in->data + in->got, sizeof(in->data) - in->got, 0, why);

		if (r < 0)
			return (int)r;
		in->got += (size_t)r;
		i += r == 0;
	}
	return in->got >= len ? 0 : fail(why, -EPROTO, "TLS: server goes on sending messages");
}

/* Nothing more has come than was asked for, tickets aside. */
static int check_quiet(int fd, char *why)
{
	uint8_t record[RECORD_MAX];

	for (unsigned i = 0; i < TICKETS_MAX; i++) {
		ssize_t r = receive(fd, record, sizeof(record), MSG_DONTWAIT, why);

		if (r == -EAGAIN)
			return 0;
		if (r < 0)
			return (int)r;
		if (r > 0)
			return fail(why, -EPROTO, "server sent %zd bytes that nobody asked for",
				    r);
	}
	return fail(why, -EPROTO, "TLS: server goes on sending messages");
}

bool ktls_by_connection(int r)
{
	return r == -ECONNRESET || r == -EPIPE || r == -ETIMEDOUT;
}

int ktls_verify(int fd, const struct export_info *info, char *why)
{
	uint32_t block = MAX(info->block_minimum, BLOCK_MIN);
	uint32_t len = (uint32_t)MIN(info->size, (uint64_t)block);
	struct nbd_request request = { .magic = htobe32(NBD_REQUEST_MAGIC),
				       .type = htobe32(NBD_CMD_READ), .len = htobe32(len) };
	struct input in = {};
	struct nbd_reply reply;
	size_t all;
	int r;

	if (len > BLOCK_MAX)
		return 0;	/* blocks that no device of the kernel can have */
	if (getrandom(request.handle, sizeof(request.handle), GRND_NONBLOCK) < 0)
		memset(request.handle, 'n', sizeof(request.handle));
	if (send(fd, &request, sizeof(request), MSG_NOSIGNAL) != sizeof(request))
		return fail(why, -errno, "TLS: the kernel cannot send: %s", strerror(errno));
	r = receive_all(fd, &in, sizeof(reply), why);
	if (r < 0)
		return r;
	memcpy(&reply, in.data, sizeof(reply));
	if (reply.magic != htobe32(NBD_REPLY_MAGIC) ||
	    memcmp(reply.handle, request.handle, sizeof(request.handle)) != 0)
		return fail(why, -EPROTO, "server answers a first read with something else");
	/* An error of the disk is the device's affair: it came through. */
	all = sizeof(reply) + (reply.error ? 0 : len);
	r = receive_all(fd, &in, all, why);
	if (r < 0)
		return r;
	if (in.got > all)
		return fail(why, -EPROTO, "server sent %zu bytes that nobody asked for",
			    in.got - all);
	return check_quiet(fd, why);
}
