#include "tests/fuzz/lib_peer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "lib/wire/message.h"
#include "lib/wire/option.h"
#include "tests/fuzz/promise.h"
#include "tests/fuzz/wrap.h"

#define CALLS_AFTER_END_MAX 64

static struct peer {
	int fd;
	struct peer_manner manner;
	peer_make *make;
	const uint8_t *input;
	size_t size, at;
	const uint8_t *ready;		/* what can be received now */
	size_t ready_len;
	unsigned calls_after_end;
	bool full;			/* the next send says EAGAIN */
	size_t sent;
	struct seen seen;
	/* What the client is sending: a header that is not whole, payload to come. */
	uint8_t head[EXTENDED_REQUEST_SIZE];
	size_t head_len;
	uint64_t skip;
	bool had_flags;
} peer = { .fd = -1 };

static uint8_t made[2 * PEER_MESSAGE_MAX];

int piece_next(const uint8_t *input, size_t size, size_t *at, struct piece *ret)
{
	const uint8_t *end;

	if (*at >= size)
		return 0;
	end = memmem(input + *at, size - *at, PEER_MARK, PEER_MARK_SIZE);
	ret->p = input + *at;
	ret->len = end ? (size_t)(end - ret->p) : size - *at;
	*at += ret->len + (end ? PEER_MARK_SIZE : 0);
	return 1;
}

struct peer_manner peer_manner(uint8_t byte)
{
	static const size_t receive_max[] = { 0, 1, 7, 600 }, send_max[] = { 0, 1, 13, 1000 },
			    break_after[] = { 0, 20, 100, 3000 };

	return (struct peer_manner) {
		receive_max[byte & 3], send_max[byte >> 2 & 3], break_after[byte >> 4 & 3],
		byte >> 6 & 1,
	};
}

int peer_begin(const uint8_t *input, size_t size, const struct peer_manner *manner,
	       peer_make *make)
{
	PROMISE(peer.fd < 0);
	memset(&peer, 0, sizeof(peer));
	peer.fd = eventfd(0, EFD_CLOEXEC);
	peer.input = input;
	peer.size = size;
	peer.manner = *manner;
	peer.make = make;
	PROMISE(peer.fd >= 0);
	return peer.fd;
}

void peer_end(void)
{
	peer.fd = -1;
}

/* Have something to receive, if anything is left. */
static void release(void)
{
	struct piece piece;
	int more = 0;

	if (peer.ready_len)
		return;
	peer.ready = made;
	while ((more || !peer.ready_len) && peer.ready_len <= PEER_MESSAGE_MAX &&
	       piece_next(peer.input, peer.size, &peer.at, &piece)) {
		if (peer.make) {
			peer.ready_len += peer.make(&piece, &peer.seen,
						    made + peer.ready_len, &more);
		} else {
			peer.ready = piece.p;
			peer.ready_len = piece.len;
		}
	}
	PROMISE(!peer.make || peer.ready_len <= sizeof(made));
	peer.full = false;
}

static bool at_end(void)
{
	return !peer.ready_len && peer.at >= peer.size;
}

/* The header in peer.head has SIZE bytes or more of payload behind it. */
static void client_said(void)
{
	uint32_t magic = be32_get(peer.head);
	uint16_t flags = be16_get(peer.head + 4), type = be16_get(peer.head + 6);
	bool extended = magic == NBD_EXTENDED_REQUEST_MAGIC;
	uint64_t length = extended ? be64_get(peer.head + 24) : be32_get(peer.head + 24);
	size_t slot = peer.seen.n % ARRAY_SIZE(peer.seen.cookies);

	if (magic == (uint32_t)(NBD_OPTION_MAGIC >> 32)) {
		peer.seen.option = be32_get(peer.head + 8);
		peer.skip = be32_get(peer.head + 12);
		PROMISE(option_name(peer.seen.option));
		return;
	}
	PROMISE(command_name(type));
	peer.seen.cookies[slot] = be64_get(peer.head + 8);
	peer.seen.offsets[slot] = be64_get(peer.head + 16);
	peer.seen.n++;
	if (extended ? flags & NBD_CMD_FLAG_PAYLOAD_LEN : type == NBD_CMD_WRITE)
		peer.skip = length;
}

/* The size of the header that begins with the bytes in peer.head, which are 4 or more. */
static size_t head_size(void)
{
	uint32_t magic = be32_get(peer.head);

	if (magic == NBD_REQUEST_MAGIC)
		return REQUEST_SIZE;
	if (magic == NBD_EXTENDED_REQUEST_MAGIC)
		return EXTENDED_REQUEST_SIZE;
	if (magic == (uint32_t)(NBD_OPTION_MAGIC >> 32))
		return OPTION_SIZE;
	/* The client's flags, once. */
	PROMISE(!peer.had_flags && magic <= 3);
	return 4;
}

static void client_sends(const uint8_t *p, size_t len)
{
	while (len) {
		size_t want = peer.skip ? (size_t)MIN(peer.skip, len)
			    : (peer.head_len < 4 ? 4 : head_size()) - peer.head_len;

		want = MIN(want, len);
		if (peer.skip) {
			peer.skip -= want;
		} else {
			memcpy(peer.head + peer.head_len, p, want);
			peer.head_len += want;
			if (peer.head_len >= 4 && peer.head_len == head_size()) {
				if (peer.head_len == 4)
					peer.had_flags = true;
				else
					client_said();
				peer.head_len = 0;
			}
		}
		p += want;
		len -= want;
	}
}

static ssize_t failed(int error)
{
	errno = error;
	return -1;
}

ssize_t peer_take(const struct iovec *iov, size_t n)
{
	const struct peer_manner *m = &peer.manner;
	size_t left = m->send_max ? m->send_max : SIZE_MAX, sent = 0;

	if (m->break_after && peer.sent >= m->break_after)
		return failed(EPIPE);
	if (peer.full) {
		peer.full = m->stubborn;
		return failed(EAGAIN);
	}
	for (size_t i = 0; i < n && left; i++) {
		size_t len = MIN(iov[i].iov_len, left);

		client_sends(iov[i].iov_base, len);
		left -= len;
		sent += len;
	}
	peer.full = m->send_max != 0;
	peer.sent += sent;
	return (ssize_t)sent;
}

ssize_t peer_give(const struct iovec *iov, size_t n, int flags)
{
	size_t left = peer.manner.receive_max ? peer.manner.receive_max : SIZE_MAX, given = 0;

	if (!(flags & MSG_DONTWAIT))
		release();
	if (at_end()) {
		/* Who is told of the end has to stop some time. */
		PROMISE(++peer.calls_after_end < CALLS_AFTER_END_MAX);
		return 0;
	}
	if (!peer.ready_len)
		return failed(EAGAIN);
	for (size_t i = 0; i < n && left && peer.ready_len; i++) {
		size_t room = MIN(iov[i].iov_len, left), len = MIN(room, peer.ready_len);

		memcpy(iov[i].iov_base, peer.ready, len);
		peer.ready += len;
		peer.ready_len -= len;
		left -= len;
		given += len;
	}
	PROMISE(given);			/* or it would look like the end */
	return (ssize_t)given;
}

bool peer_is(int fd)
{
	return fd == peer.fd;
}

int peer_poll(struct pollfd *fds, int timeout)
{
	fds->revents = 0;
	if (!peer.manner.stubborn)
		peer.full = false;
	if (fds->events & POLLOUT && !peer.full)
		fds->revents |= POLLOUT;
	/* Nobody waits for ever: what would come in time comes now. */
	if (timeout && !fds->revents)
		release();
	if (peer.ready_len || at_end())
		fds->revents |= POLLIN;
	return fds->revents != 0;
}
