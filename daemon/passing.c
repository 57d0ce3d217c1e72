#include "daemon/passing.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/owner.h"
#include "lib/util/clock.h"

int passing_send(int sock, const char *word, const char *text, size_t len, const int *fds,
		 size_t n_fds)
{
	size_t start = strlen(word) + 1;
	char *all;
	int r;

	if (start + len > PASSING_TEXT_MAX)
		return -E2BIG;
	all = malloc(start + len);
	if (!all)
		return -ENOMEM;
	memcpy(all, word, start - 1);
	all[start - 1] = ' ';
	memcpy(all + start, text, len);
	r = fd_send(sock, all, start + len, fds, n_fds);
	free(all);
	return r;
}

int passing_say(int sock, const char *word, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return passing_send(sock, word, text, strlen(text), NULL, 0);
}

void passing_close_fds(struct passing *p)
{
	while (p->n_fds)
		fd_close(p->fds[--p->n_fds]);
}

static int wait_readable(int sock, uint64_t limit_usec)
{
	uint64_t end = usec_add(now_usec(), limit_usec);
	struct pollfd p = { .fd = sock, .events = POLLIN };

	for (;;) {
		uint64_t left = usec_sub(end, now_usec());
		int r = poll(&p, 1, (int)(left / USEC_PER_MSEC));

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0)
			return -ETIMEDOUT;
	}
}

int passing_receive(int sock, uint64_t limit_usec, struct passing *ret)
{
	ssize_t n;
	size_t word;
	int r = wait_readable(sock, limit_usec);

	ret->n_fds = 0;
	if (r < 0)
		return r;
	ret->n_fds = PASSING_FDS_MAX;
	n = fd_recv(sock, ret->buf, PASSING_TEXT_MAX, ret->fds, &ret->n_fds);
	if (n <= 0)
		ret->n_fds = 0;
	if (n <= 0)
		return n == 0 ? -ECONNRESET : (int)n;
	ret->buf[n] = '\0';
	word = strcspn(ret->buf, " ");
	if (word >= sizeof(ret->word) || (size_t)n <= word) {
		passing_close_fds(ret);
		return -EPROTO;
	}
	memcpy(ret->word, ret->buf, word);
	ret->word[word] = '\0';
	ret->text = ret->buf + word + 1;
	ret->len = (size_t)n - word - 1;
	return 0;
}

int passing_expect(int sock, uint64_t limit_usec, const char *word, struct passing *ret)
{
	int r = passing_receive(sock, limit_usec, ret);

	if (r < 0 || strcmp(ret->word, word) == 0)
		return r;
	passing_close_fds(ret);
	return -EPROTO;
}

int passing_peer(int sock, const struct owners *owners, int *ret_pid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	if (!owners_have(owners, peer.uid))
		return -EPERM;
	*ret_pid = peer.pid;
	fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	return fd < 0 ? -errno : fd;
}

bool passing_peer_dead(int pidfd, uint64_t limit_usec)
{
	return wait_readable(pidfd, limit_usec) == 0;
}
