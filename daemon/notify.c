#include "daemon/notify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/util/cleanup.h"

struct notify {
	int fd;
	struct sockaddr_un address;
	socklen_t len;
};

/* sd_notify(3): a path, or `@` and a name in the abstract namespace. */
static int parse(const char *path, struct notify *n)
{
	size_t len = strlen(path);

	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof(n->address.sun_path))
		return -EINVAL;
	n->address.sun_family = AF_UNIX;
	memcpy(n->address.sun_path, path, len);
	if (path[0] == '@')
		n->address.sun_path[0] = '\0';
	n->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

int notify_open(struct notify **ret)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct notify *n;
	int r;

	*ret = NULL;
	if (!path)
		return 0;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	r = parse(path, n);
	n->fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->fd < 0) {
		r = r < 0 ? r : -errno;
		free(n);
		return r;
	}
	*ret = n;
	return 0;
}

void notify_close(struct notify *n)
{
	if (!n)
		return;
	fd_close(n->fd);
	free(n);
}

int notify_send(struct notify *n, const char *text)
{
	return notify_send_fd(n, text, -1);
}

int notify_send_fd(struct notify *n, const char *text, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (!n)
		return 0;
	m.msg_name = &n->address;
	m.msg_namelen = n->len;
	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	return sendmsg(n->fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}
